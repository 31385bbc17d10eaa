"""`skyscraper explain STREAM`: why this configuration now."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at


def explain(
    stream: Annotated[str, typer.Argument(help="Name of the stream.")],
    bootstrap: Bootstrap = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    decisions: Annotated[int, typer.Option(help="How many of the last decisions.", min=1, max=1000)] = 10,
) -> None:
    """Why a stream runs the configuration it runs: alternatives, prices, guard, plan. Or what is missing for that."""
    from skyscraper.bus.reports import last_reports
    from skyscraper.bus.topics import REPORTS
    from skyscraper.cli.watching import ANSWER_SECONDS, open_tables
    from skyscraper.view.explain import Sources
    from skyscraper.view.explain import explain as explained

    client = client_at(bootstrap)
    with open_tables(client, REPORTS) as tables:
        entry = tables.streams().get(stream)
        plan = tables.plans().get(stream)
        own = plan.stream if plan is not None and plan.HasField("stream") else None
        reports = []
        if entry is not None:
            reports = last_reports(client, stream, entry.partition, decisions, deadline_seconds=ANSWER_SECONDS)
        decided = [one.report for one in reports if one.report.HasField("decision")]
        pipeline = (decided[-1].pipeline if decided else "") or (own.pipeline if own is not None else "")
        pipeline = pipeline or (entry.pipeline if entry is not None else "")
        version = decided[-1].decision.profile_version if decided else own.profile_version if own is not None else ""
        told = explained(
            Sources(
                stream_id=stream,
                entry=entry,
                plan_version=None if plan is None else plan.version,
                plan=own,
                pool=tables.pool(),
                fit=tables.fit(pipeline, version) if version else None,
                published_fits=tables.published_fits(pipeline),
                reports=reports,
            ),
            time.time(),
        )
    if as_json:
        typer.echo(json.dumps(told.as_json()))
    else:
        from rich.console import Console

        from skyscraper.view.explain_table import explanation

        console = Console()
        console.print(explanation(told, console.width))
    # A name that nobody knows is most often a slip of the keyboard.
    if entry is None and plan is None:
        raise typer.Exit(1)
