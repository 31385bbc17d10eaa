"""`skyscraper simulate`: every policy over recorded or generated traces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from skyscraper.simulate.errors import TraceError


def simulate(
    traces: Annotated[list[Path], typer.Argument(help="Trace files (.npz); several are streams under one budget.")],
    cores: Annotated[float, typer.Option(help="Cores of the pool; fractions are allowed.")] = 4.0,
    buffer_seconds: Annotated[float, typer.Option(help="How long a segment may wait before it is lost.")] = 21_600.0,
    burst_usd_per_day: Annotated[float, typer.Option(help="What burst machines may cost a day, all streams.")] = 0.0,
    train_fraction: Annotated[float, typer.Option(help="Share of each trace to learn from; the rest is run.")] = 0.625,
    policy: Annotated[
        str, typer.Option(help="static, videostorm, chameleon, skyscraper, priced, optimum, or all.")
    ] = "all",
    reserve_seconds: Annotated[
        float, typer.Option(help="Part of the buffer that the guard keeps free, to ride out an outage of that length.")
    ] = 0.0,
    work_factor: Annotated[float, typer.Option(help="True work over estimated work, which no policy is told.")] = 1.0,
    outage_seconds: Annotated[float, typer.Option(help="The pool stands still so long, half-way through.")] = 0.0,
    buffer_gib: Annotated[
        float | None, typer.Option(help="Limit of the buffer in GiB, beside that in seconds.")
    ] = None,
    burst_uplink_mbit_per_second: Annotated[float | None, typer.Option(help="No limit if left out.")] = None,
    burst_interruptions_per_day: Annotated[float, typer.Option(help="How often spot machines are taken away.")] = 0.0,
    burst_interruption_seconds: Annotated[float, typer.Option(help="Until new ones are there.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Of clustering, trees and interruptions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Replay traces under one policy or all, as the services would decide, and tell quality, cost and losses."""
    # numba and scikit-learn take a second to import; only this command pays for it.
    from skyscraper.simulate.conditions import Disturbance, Resources
    from skyscraper.simulate.run import POLICIES, Study
    from skyscraper.simulate.trace import load_trace
    from skyscraper.simulate.training import Settings

    if policy != "all" and policy not in POLICIES:
        raise TraceError(f"--policy {policy}: not known; choose from {', '.join(POLICIES)}, all")
    resources = Resources(
        cores=cores,
        buffer_seconds=buffer_seconds,
        usd_per_day=burst_usd_per_day,
        reserve_seconds=reserve_seconds,
        buffer_bytes=None if buffer_gib is None else buffer_gib * (1 << 30),
        uplink_bytes_per_second=None
        if burst_uplink_mbit_per_second is None
        else burst_uplink_mbit_per_second * 1e6 / 8,
        interruptions_per_day=burst_interruptions_per_day,
        interruption_seconds=burst_interruption_seconds,
    )
    study = Study([load_trace(path) for path in traces], train_fraction=train_fraction, settings=Settings(seed=seed))
    # The guard is told how wrong estimates may be, not which way.
    resources = replace(resources, uncertainty=(1 + study.work_uncertainty) * (1 + abs(work_factor - 1)) - 1)
    disturbance = Disturbance(
        work_factor=work_factor, outage_start_seconds=study.test_seconds / 2, outage_seconds=outage_seconds
    )
    bound = study.bound(resources, disturbance)
    names = POLICIES if policy == "all" else (policy,)
    outcomes = [study.run(name, resources, disturbance, bound=bound) for name in names]
    if as_json:
        typer.echo(json.dumps({"policies": {outcome.policy: outcome.as_dict() for outcome in outcomes}}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{len(traces)} stream(s), {cores:g} cores, {buffer_seconds:g} s buffer, {burst_usd_per_day:g} USD a day"
    )
    for heading in ("policy", "quality", "of optimum", "core-hours", "burst USD", "lost", "longest wait (s)"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for outcome in outcomes:
        known = outcome.core_seconds is not None
        table.add_row(
            outcome.policy,
            f"{outcome.mean_quality:.4g}",
            f"{outcome.share_of_optimum:.3f}",
            f"{outcome.core_seconds / 3600:.1f}" if outcome.core_seconds is not None else "",
            f"{outcome.burst_usd:.2f}" if outcome.burst_usd is not None else "",
            str(outcome.overflow_segments) if known else "",
            f"{outcome.max_backlog_seconds:.0f}" if outcome.max_backlog_seconds is not None else "",
        )
    Console().print(table)
