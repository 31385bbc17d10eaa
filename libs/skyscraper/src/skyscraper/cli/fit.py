"""`skyscraper fit` and `skyscraper profile show`: the offline phase and a look at what it learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at
from skyscraper.errors import SkyscraperError

profile_app = typer.Typer(help="Profiles: what the offline phase learned of a pipeline.", no_args_is_help=True)

DAYS_PER_WINDOW = 2.0


def fit(
    trace: Annotated[Path, typer.Argument(help="A trace of the pipeline (.npz): see `skyscraper trace record`.")],
    out: Annotated[Path, typer.Option("--out", help="Profile to write (.pb).")],
    pipeline: Annotated[str, typer.Option(help="The pipeline that the trace was recorded with.")] = "counting",
    categories: Annotated[
        int | None, typer.Option(help="Content categories; chosen if left out.", min=2, max=64)
    ] = None,
    plan_window_days: Annotated[float, typer.Option(help="How far the forecaster looks.", min=0.01)] = DAYS_PER_WINDOW,
    uplink_mbit_per_second: Annotated[float, typer.Option(help="To the burst machines.", min=0.1)] = 100.0,
    downlink_mbit_per_second: Annotated[float, typer.Option(help="From the burst machines.", min=0.1)] = 100.0,
    burst_usd_per_core_hour: Annotated[float | None, typer.Option(help="A spot machine's core.", min=0)] = None,
    history_rows: Annotated[
        int, typer.Option(help="Segments of the past that the profile carries for the planner.", min=60)
    ] = 8_000,
    seed: Annotated[int, typer.Option(help="The same trace and seed give the same profile.", min=0)] = 0,
) -> None:
    """Learn a profile from a trace: categories, forecaster, predictors, work, placements (the paper's section 3)."""
    from skyscraper.bus.profiles import describe
    from skyscraper.cli.progress import progress_bars
    from skyscraper.pipeline import load_pipeline
    from skyscraper.pipeline.pipeline import STATELESS_OPERATORS
    from skyscraper.profile.codec import encode_fit
    from skyscraper.profile.fit import fit as learn
    from skyscraper.profile.place import Burst
    from skyscraper.record.footage import footage_of
    from skyscraper.simulate.prices import BURST_USD_PER_CORE_SECOND, ROUND_TRIP_SECONDS
    from skyscraper.simulate.trace import load_trace

    loaded = load_pipeline(pipeline)
    price = BURST_USD_PER_CORE_SECOND if burst_usd_per_core_hour is None else burst_usd_per_core_hour / 3600
    bits = 1e6 / 8
    burst = Burst(price, ROUND_TRIP_SECONDS, uplink_mbit_per_second * bits, downlink_mbit_per_second * bits)
    with progress_bars() as progress:
        learned = learn(
            footage_of(load_trace(trace), loaded),
            seed=seed,
            burst=burst,
            stateless=STATELESS_OPERATORS,
            categories=categories,
            window_seconds=plan_window_days * 86_400,
            history_rows=history_rows,
            progress=progress,
        )
    message = describe(loaded)
    message.fit.CopyFrom(encode_fit(learned))
    data = message.SerializeToString(deterministic=True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    except OSError as error:
        raise SkyscraperError(f"--out {out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{out}: version {learned.version}, {len(data)} bytes; next: skyscraper profile show {out}")
    if learned.forecaster is None:
        needed = plan_window_days + DAYS_PER_WINDOW
        typer.echo(
            f"no forecaster: it needs more than {needed:g} days, and the planner uses the last days as they were"
        )


@profile_app.command("publish")
def publish(
    profile: Annotated[Path, typer.Argument(help="A profile (.pb): see `skyscraper fit`.")],
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Put a fit in force: decoders and the tuner read it from sky.profiles."""
    from skyscraper.bus.profiles import publish_profile
    from skyscraper.profile.codec import decode_fit
    from skyscraper.profile.load import load_profile

    message = load_profile(profile)
    # What cannot be read back must not reach the services.
    learned = decode_fit(message.fit)
    publish_profile(client_at(bootstrap), message)
    typer.echo(f"published {message.pipeline}, fit {learned.version}, to {bootstrap}")


@profile_app.command("show")
def show(
    profile: Annotated[Path, typer.Argument(help="A profile (.pb).")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for pareto.png and categories.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Tables of configurations and categories; with --out also their pictures."""
    from skyscraper.cli.profile_plots import draw
    from skyscraper.profile.codec import decode_fit
    from skyscraper.profile.load import load_profile

    message = load_profile(profile)
    found = decode_fit(message.fit)
    configurations: list[dict[str, Any]] = [
        {
            "knobs": knobs,
            "cores": float(found.work.rate[k]),
            "work_uncertainty": float(found.work.uncertainty[k]),
            "mean_quality": float(found.mean_quality[k]),
            "operators": dict(zip(found.operators, found.operator_work[k].tolist(), strict=True)),
            "burst_usd_per_hour": max(one.usd for one in found.placements[k]) * 3600 / found.segment_seconds,
        }
        for k, knobs in enumerate(found.configurations)
    ]
    categories = [
        {"share": float(share), "qualities": centre.tolist()}
        for share, centre in zip(found.categories.share, found.categories.centres, strict=True)
    ]
    told = {
        "pipeline": message.pipeline,
        "version": found.version,
        "segments": found.segments,
        "segment_seconds": found.segment_seconds,
        "configurations": configurations,
        "categories": categories,
        "silhouette": found.categories.silhouette,
        "discriminating_configuration": found.discriminating,
        "forecaster_mae": None if found.forecaster is None else found.forecaster.mae,
        "prediction_error": {"without_look_ahead": found.relative_error[0], "with": found.relative_error[1]},
    }
    if out is not None:
        draw(found, out)
    if as_json:
        typer.echo(json.dumps(told))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{message.pipeline}, fit {found.version}: {found.segments} segments")
    knobs = [knob.name for knob in message.knobs]
    for heading in (", ".join(knobs), "cores", "±", "quality", "burst $/h"):
        table.add_column(heading, justify="left" if heading[0].islower() and "," in heading else "right")
    for row in configurations:
        table.add_row(
            ", ".join(row["knobs"][knob] for knob in knobs),
            f"{row['cores']:.3f}",
            f"{row['work_uncertainty']:.0%}",
            f"{row['mean_quality']:.4g}",
            f"{row['burst_usd_per_hour']:.4f}",
        )
    console.print(table)
    table = Table(title=f"content categories (silhouette {found.categories.silhouette:.2f})")
    for heading in ("category", "share", "cheapest", "dearest"):
        table.add_column(heading, justify="right")
    for index, category in enumerate(found.categories.centres):
        share = found.categories.share[index]
        table.add_row(str(index), f"{share:.0%}", f"{category[0]:.4g}", f"{category[-1]:.4g}")
    console.print(table)
    print(f"told apart by configuration {found.discriminating}")
    if found.forecaster is None:
        print("no forecaster: the trace was too short")
    else:
        days = found.window_seconds / 86_400
        print(f"forecaster: shares of the coming {days:g} days are off by {found.forecaster.mae:.3f} on average")
    without, ahead = found.relative_error
    print(f"a segment's quality is predicted with {without:.0%} of its deviation left, {ahead:.0%} with look-ahead")
    if out is not None:
        print(f"pictures: {out / 'pareto.png'}, {out / 'categories.png'}")
