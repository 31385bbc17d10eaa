"""`skyscraper trace`: make, stretch and look at traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from skyscraper.errors import SkyscraperError
from skyscraper.simulate.errors import TraceError

trace_app = typer.Typer(help="Traces: what every configuration yields on every segment.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="File to write (.npz).")]
_KINDS = "diurnal, regimes, bursty, mosei-high or mosei-long"


@trace_app.command("generate")
def generate_trace(
    kind: Annotated[str, typer.Argument(help=f"Content: {_KINDS}.")],
    out: Out,
    days: Annotated[float, typer.Option(help="Length.", min=0.01)] = 8.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same trace.", min=0)] = 0,
    segment_seconds: Annotated[float, typer.Option(help="Length of a segment.", min=0.1)] = 4.0,
    configurations: Annotated[int, typer.Option(help="How many configurations.", min=2, max=256)] = 8,
    feature_noise: Annotated[float, typer.Option(help="1 is what packet headers show; 0 is perfect.", min=0)] = 1.0,
) -> None:
    """A trace of simulated content."""
    from skyscraper.simulate.generate import generate
    from skyscraper.simulate.trace import save_trace

    made = generate(
        kind,
        days=days,
        seed=seed,
        segment_seconds=segment_seconds,
        configurations=configurations,
        feature_noise=feature_noise,
    )
    save_trace(_writable(out), made)
    typer.echo(f"{out}: {made.segments} segments, {made.configurations} configurations")


@trace_app.command("record")
def record_trace(
    source: Annotated[str, typer.Argument(help="A file, a folder, or street:people?light=curve&time_scale=90&…")],
    out: Out,
    pipeline: Annotated[str, typer.Option(help="Whose configurations are run.")] = "counting",
    segment_seconds: Annotated[float, typer.Option(help="Length of a segment.", min=0.5)] = 2.0,
    max_segments: Annotated[int, typer.Option(help="Stop after so many.", min=60)] = 100_000,
    configurations: Annotated[int, typer.Option(help="At most so many are kept by the knob search.", min=2)] = 12,
    search_segments: Annotated[int, typer.Option(help="Segments that the search looks at.", min=2, max=32)] = 6,
    processes: Annotated[int, typer.Option(help="0: as many as there are cores.", min=0)] = 0,
) -> None:
    """Search a pipeline's knobs on real video, run what is worth having on all of it, and write down what it gave.

    A run that was killed goes on where it stopped when it is started again.
    """
    from skyscraper.cli.progress import progress_bars
    from skyscraper.media.sources import parse_source
    from skyscraper.pipeline import load_pipeline
    from skyscraper.record.make import make_recording, to_trace
    from skyscraper.simulate.trace import save_trace

    _writable(out)
    with progress_bars() as progress:
        recording, hours = make_recording(
            load_pipeline(pipeline),
            parse_source(source),
            segment_seconds=segment_seconds,
            max_segments=max_segments,
            most_configurations=configurations,
            search_segments=search_segments,
            folder=out.with_suffix(".partial"),
            processes=processes,
            progress=progress,
        )
    made = to_trace(out.stem, recording, hours)
    save_trace(out, made)
    typer.echo(
        f"{out}: {made.segments} segments, {made.configurations} configurations; next: skyscraper trace show {out}"
    )


@trace_app.command("stretch")
def stretch_trace(
    trace: Annotated[Path, typer.Argument(help="A recording of a street camera's day.")],
    out: Out,
    days: Annotated[float, typer.Option(help="Length.", min=0.01)] = 8.0,
    seed: Annotated[int, typer.Option(help="Of the days.", min=0)] = 0,
    camera_seed: Annotated[int, typer.Option(help="The camera's own seed when it was recorded.", min=0)] = 0,
    train_fraction: Annotated[
        float, typer.Option(help="The first days, in thirds, and the rest show pixels of their own.", min=0.1, max=1)
    ] = 0.625,
) -> None:
    """Lay a recording of a day in minutes out over full days."""
    from skyscraper.simulate.stretch import stretch
    from skyscraper.simulate.trace import load_trace, save_trace

    thirds = train_fraction / 3
    parts = (thirds, thirds, thirds, 1 - train_fraction) if train_fraction < 1 else (thirds, thirds, thirds)
    made = stretch(load_trace(trace), days=days, seed=seed, base_seed=camera_seed, parts=parts)
    save_trace(_writable(out), made)
    typer.echo(f"{out}: {made.segments} segments over {days:g} days")


@trace_app.command("show")
def show_trace(
    trace: Annotated[Path, typer.Argument(help="A trace (.npz).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """The configurations of a trace: work, quality, and how often each is the best for its work."""
    from skyscraper.simulate.trace import load_trace

    found = load_trace(trace)
    work, quality = found.work_core_seconds.mean(axis=0), found.quality.mean(axis=0)
    spread = found.work_core_seconds.std(axis=0) / work
    rows: list[dict[str, Any]] = [
        {
            "configuration": found.labels[k] if found.labels else str(k),
            "cores": work[k] / found.segment_seconds,
            "work_core_seconds": work[k],
            "work_deviation": spread[k],
            "mean_quality": quality[k],
            "share_of_dearest": quality[k] / max(quality[-1], 1e-12),
        }
        for k in range(found.configurations)
    ]
    if as_json:
        typer.echo(
            json.dumps({"segments": found.segments, "segment_seconds": found.segment_seconds, "configurations": rows})
        )
        return
    from rich.console import Console
    from rich.table import Table

    hours = found.segments * found.segment_seconds / 3600
    table = Table(title=f"{trace}: {found.segments} segments of {found.segment_seconds:g} s ({hours:.1f} h)")
    for heading in ("configuration", "cores", "core-seconds", "± of work", "quality", "of the dearest"):
        table.add_column(heading, justify="left" if heading == "configuration" else "right")
    for row in rows:
        table.add_row(
            str(row["configuration"]),
            f"{row['cores']:.3f}",
            f"{row['work_core_seconds']:.3f}",
            f"{row['work_deviation']:.0%}",
            f"{row['mean_quality']:.4g}",
            f"{row['share_of_dearest']:.2f}",
        )
    Console().print(table)


def _writable(out: Path) -> Path:
    if out.suffix != ".npz":
        raise TraceError(f"--out {out}: a trace's name ends in .npz")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkyscraperError(f"--out {out}: its folder cannot be made ({error.strerror})") from error
    return out
