"""The `skyscraper` command: one function per subcommand, each a thin layer over the library."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from skyscraper.cli.explain import explain
from skyscraper.cli.fit import fit, profile_app
from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at
from skyscraper.cli.plan import plan_app
from skyscraper.cli.simulate import simulate
from skyscraper.cli.smoke import smoke
from skyscraper.cli.streams import stream_app
from skyscraper.cli.top import top
from skyscraper.cli.trace import trace_app
from skyscraper.errors import SkyscraperError
from skyscraper.paths import cache_dir
from skyscraper.service.logs import configure_logs

app = typer.Typer(
    help="Video in, table rows out, at the best quality a fixed budget buys.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
broker_app = typer.Typer(help="A real Kafka broker on this machine, for trying things out.", no_args_is_help=True)
topics_app = typer.Typer(help="The topics of an installation.", no_args_is_help=True)
pipeline_app = typer.Typer(help="Pipelines: what turns video into rows.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")
app.add_typer(topics_app, name="topics")
app.add_typer(stream_app, name="stream")
app.add_typer(pipeline_app, name="pipeline")
app.add_typer(trace_app, name="trace")
app.add_typer(profile_app, name="profile")
app.add_typer(plan_app, name="plan")


class Pace(StrEnum):
    """How fast a file is published."""

    REAL = "real"
    MAX = "max"


@app.command()
def demo(
    seconds: Annotated[int, typer.Option(help="Length of the compressed day.", min=20)] = 120,
    streams: Annotated[int, typer.Option(help="Number of street cameras.", min=1, max=32)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    keep_running: Annotated[bool, typer.Option(help="Stay up after the summary until Ctrl-C.")] = False,
    folder: Annotated[Path, typer.Option(help="Where logs, tables and the picture go.")] = Path("out/demo"),
) -> None:
    """A compressed day of street cameras on a real broker, twice: one static configuration, and Skyscraper."""
    from skyscraper.demo.run import DemoOptions, run_demo

    result = run_demo(
        DemoOptions(seconds=seconds, streams=streams, keep_running=keep_running, folder=folder),
        Console(stderr=as_json),
    )
    if as_json:
        print(json.dumps(result.as_json()))
    if not result.good:
        raise typer.Exit(1)


@broker_app.command("start")
def broker_start(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 9092,
    brokers: Annotated[int, typer.Option(help="1, or 3 for replication.")] = 1,
    data_dir: Annotated[Path | None, typer.Option(help="Where the broker keeps its data.")] = None,
) -> None:
    """Start it in the background, if it does not run yet."""
    from skyscraper.localkafka import background

    state = background.start(data_dir or _broker_dir(), port=port, brokers=brokers)
    print(f"Kafka runs at {state.bootstrap_servers} (data in {state.data_dir})")
    print(f"next: skyscraper topics create --bootstrap {state.bootstrap_servers}")


@broker_app.command("stop")
def broker_stop(data_dir: Annotated[Path | None, typer.Option(help="As given to start.")] = None) -> None:
    """Stop it; its data stays."""
    from skyscraper.localkafka import background

    print("stopped" if background.stop(data_dir or _broker_dir()) else "no broker runs")


@broker_app.command("status")
def broker_status(data_dir: Annotated[Path | None, typer.Option(help="As given to start.")] = None) -> None:
    """Say whether it runs; exit status 1 where it does not."""
    from skyscraper.localkafka import background

    state = background.status(data_dir or _broker_dir())
    if state is None:
        print("no broker runs")
        raise typer.Exit(1)
    print(f"Kafka runs at {state.bootstrap_servers} (data in {state.data_dir})")


@topics_app.command("create")
def topics_create(
    bootstrap: Bootstrap = LOCAL,
    streams: Annotated[int, typer.Option(help="Partitions: one for every camera there may ever be.", min=1)] = 64,
    pipelines: Annotated[list[str] | None, typer.Option("--pipeline", help="Whose rows topics; repeatable.")] = None,
    retention_hours: Annotated[float, typer.Option(help="The buffer: how long a segment may wait.", min=0.01)] = 24,
    retention_gib_per_stream: Annotated[
        float, typer.Option(help="The buffer: how much a stream may hold.", min=0.07)
    ] = 4,
    replication_factor: Annotated[int, typer.Option(help="Copies of every partition; 3 in production.", min=1)] = 1,
) -> None:
    """Create what is missing; what is there is left as it is."""
    from skyscraper.bus.admin import create_topics
    from skyscraper.bus.profiles import register_pipeline
    from skyscraper.bus.topics import topic_specs
    from skyscraper.pipeline import load_pipeline

    client = client_at(bootstrap)
    loaded = [load_pipeline(name) for name in pipelines or ["counting"]]
    specs = topic_specs(
        partitions=streams,
        pipelines=[pipeline.name for pipeline in loaded],
        retention_seconds=retention_hours * 3600,
        retention_bytes_per_partition=int(retention_gib_per_stream * (1 << 30)),
    )
    created = create_topics(client, specs, replication_factor=replication_factor)
    for pipeline in loaded:
        register_pipeline(client, pipeline)
    print(f"created: {', '.join(created) or 'nothing, all were there'}")


@pipeline_app.command("list")
def pipeline_list() -> None:
    """The installed pipelines and their knobs."""
    from importlib.metadata import entry_points

    from skyscraper.pipeline import load_pipeline
    from skyscraper.pipeline.pipeline import ENTRY_POINTS

    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        pipeline = load_pipeline(point.name)
        print(f"{pipeline.name} (version {pipeline.version})")
        for knob in pipeline.knobs:
            print(f"  {knob.name}: {', '.join(map(str, knob.domain))} (default {knob.default}): {knob.description}")


@pipeline_app.command("register")
def pipeline_register(
    name: str,
    version: Annotated[str, typer.Option(help="Left out, the one installed under the plain name.")] = "",
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Tell the loader what the pipeline's rows look like."""
    from skyscraper.bus.profiles import register_pipeline
    from skyscraper.pipeline import load_pipeline

    register_pipeline(client_at(bootstrap), load_pipeline(name, version))
    print(f"registered {name}")


@app.command()
def publish(
    source: Annotated[str, typer.Argument(help="URL, file, folder, /dev/video0, or street:people?density=6")],
    stream: Annotated[str, typer.Option(help="Name of the camera, e.g. gate-3.")],
    bootstrap: Bootstrap = LOCAL,
    pipeline: Annotated[str, typer.Option(help="Pipeline that turns it into rows.")] = "counting",
    loop: Annotated[bool, typer.Option(help="Start a file again when it ends.")] = False,
    pace: Annotated[Pace, typer.Option(help="real time, or as fast as Kafka takes it.")] = Pace.REAL,
    partition: Annotated[int | None, typer.Option(help="Left out: the registered or lowest free one.", min=0)] = None,
    max_segments: Annotated[int | None, typer.Option(help="Stop after so many.", min=1)] = None,
) -> None:
    """Publish one camera until it ends or Ctrl-C. Many cameras: python -m skyscraper_publisher --config FILE."""
    from skyscraper.cli.publishing import run_publisher

    options = {"loop": loop, "pace": pace.value, "partition": partition, "max_segments": max_segments}
    entry: dict[str, Any] = {"id": stream, "source": source, "pipeline": pipeline}
    entry |= {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(run_publisher(entry, bootstrap))


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SQL statement; tables are named after their pipelines.")],
    warehouse: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("out/demo/warehouse"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
) -> None:
    """Run SQL over the tables."""
    from skyscraper.cli.tables import print_table
    from skyscraper.lakehouse.catalog import CatalogConfig, open_catalog
    from skyscraper.lakehouse.query import run_query

    if not (warehouse / "catalog.db").exists():
        raise SkyscraperError(f"{warehouse} has no tables: run `skyscraper demo`, or name a folder with --warehouse")
    config = CatalogConfig(warehouse_path=warehouse)
    result = run_query(open_catalog(config), config.namespace, sql)
    if as_json:
        for row in result.to_pylist():
            print(json.dumps(row, default=str))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(result.column_names)
        writer.writerows(row.values() for row in result.to_pylist())
    else:
        print_table(result, Console())


app.command()(explain)
app.command()(fit)
app.command()(simulate)
app.command()(smoke)
app.command()(top)


def main() -> None:
    """Run the command; a fault we know is one line on stderr and exit status 1."""
    configure_logs("cli", log_format="console", level="warning")
    try:
        app()
    except SkyscraperError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _broker_dir() -> Path:
    return cache_dir() / "broker"
