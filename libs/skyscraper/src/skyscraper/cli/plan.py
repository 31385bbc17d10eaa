"""`skyscraper plan show [STREAM]`: the plan in force."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at
from skyscraper.errors import SkyscraperError

plan_app = typer.Typer(help="Plans: what the tuner says.", no_args_is_help=True)


@plan_app.callback()
def plans() -> None:
    """Plans: what the tuner says."""


@plan_app.command("show")
def show(
    stream: Annotated[str | None, typer.Argument(help="Only this stream, with the paper's plan of it.")] = None,
    bootstrap: Bootstrap = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """The pool's prices by time of day and lag, and what each stream was given."""
    from skyscraper.cli.watching import open_tables
    from skyscraper.view.plans import plans_view

    with open_tables(client_at(bootstrap)) as tables:
        found = {name: plan for name, plan in tables.plans().items() if plan.HasField("stream")}
        if stream is not None and stream not in found:
            known = ", ".join(sorted(found)[:5]) + (", …" if len(found) > 5 else "")
            raise SkyscraperError(
                f"no plan names the stream {stream}; "
                + (f"there are plans for {known}" if found else "there are no plans: is the tuner running?")
            )
        wanted = found if stream is None else {stream: found[stream]}
        fits = {
            name: fit
            for name, plan in wanted.items()
            if (fit := tables.fit(plan.stream.pipeline, plan.stream.profile_version)) is not None
        }
        pool = tables.pool()
        damaged = tuple(f"{name}: {reason}" for name, reason in sorted(tables.damaged.items()))
    told = plans_view(pool, wanted, fits, time.time(), damaged)
    if as_json:
        typer.echo(json.dumps(told.as_json()))
        return
    from rich.console import Console

    from skyscraper.view.plans_table import plans_table

    console = Console()
    console.print(plans_table(told, console.width))
