"""`skyscraper top`: the fleet at a glance."""

from __future__ import annotations

import json
import logging
import signal
import threading
from typing import Annotated

import structlog
import typer

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at

# An hour of a thousand streams is two million reports: --once reads them all, the live table shows what it has.
_CATCH_UP_SECONDS = 60.0
_FIRST_LOOK_SECONDS = 1.0


def top(
    bootstrap: Bootstrap = LOCAL,
    once: Annotated[bool, typer.Option("--once", help="Print it once instead of following.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, once.")] = False,
    rows: Annotated[int | None, typer.Option(help="Show so many streams; else what the screen holds.", min=1)] = None,
    every_seconds: Annotated[float, typer.Option(help="Time between two looks.", min=0.2)] = 2.0,
) -> None:
    """Every stream with its configuration, quality, lag and headroom; those that need attention first."""
    from rich.console import Console
    from rich.live import Live

    from skyscraper.bus.topics import REPORTS, SEGMENTS
    from skyscraper.cli.following import Follower
    from skyscraper.cli.watching import open_tables
    from skyscraper.view.top_table import fitting_rows, top_table

    client = client_at(bootstrap)
    with open_tables(client, REPORTS, SEGMENTS) as tables:
        follower = Follower(client, tables)
        try:
            follower.catch_up(_CATCH_UP_SECONDS if once or as_json else _FIRST_LOOK_SECONDS)
            if as_json:
                typer.echo(json.dumps(follower.look().as_json() | {"caveats": follower.caveats()}))
                return
            console = Console()
            if once:
                console.print(top_table(follower.look(), console.width, most_rows=rows, caveats=follower.caveats()))
                return
            # A table on the screen bears no log lines; what they would say stands in its header.
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
            # An exception raised by Ctrl+C is lost where it meets a callback from Kafka's library; a flag is not.
            ended = threading.Event()
            signal.signal(signal.SIGINT, lambda *_: ended.set())
            with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
                while not ended.is_set():
                    look, caveats = follower.look(), follower.caveats()
                    fitting = rows or fitting_rows(look, console.width, console.height, caveats)
                    shown = top_table(look, console.width, most_rows=fitting, caveats=caveats)
                    live.update(shown, refresh=True)
                    follower.wait(every_seconds, ended.is_set)
        except KeyboardInterrupt:
            return
        finally:
            follower.close()
