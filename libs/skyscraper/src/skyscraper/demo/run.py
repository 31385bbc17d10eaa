"""The demo: street cameras through every service on a real broker, watched, and then judged against the truth."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition
from rich.console import Console
from rich.live import Live
from rich.table import Table

from skyscraper.bus import topics
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds
from skyscraper.demo import score
from skyscraper.demo.cameras import CAMERAS, Camera, render_cameras
from skyscraper.demo.picture import draw_picture
from skyscraper.demo.stack import Stack, StackError
from skyscraper.demo.watch import Watch
from skyscraper.lakehouse.catalog import open_catalog
from skyscraper.models.repository import install_models
from skyscraper.service.logs import configure_logs
from skyscraper.v1 import report_pb2

PIPELINE = "counting"
MODEL = "nanodet-g"
# Five frames per second at 320 pixels: six cameras then need about half a core of this year's CPUs.
CONFIGURATION = {"model": MODEL, "frame_rate": "5", "input_size": "320"}

_NEXT_QUERY = (
    "SELECT _stream, date_trunc('minute', event_time) AS minute, count(DISTINCT track_id) AS people "
    "FROM counting WHERE label = 'person' GROUP BY ALL ORDER BY ALL"
)

_DRAIN_SECONDS = 60.0
_TURN_SECONDS = 1.0


@dataclass(frozen=True)
class DemoOptions:
    seconds: float
    streams: int
    keep_running: bool
    folder: Path


@dataclass(frozen=True)
class DemoResult:
    """What the demo proves. `good` where nothing was lost or repeated and every segment is accounted for."""

    segments_published: int
    segments_processed: int
    segments_lost: int
    dead_letters: int
    rows: int
    rows_repeated: int
    count_error: float
    latency_seconds: Mapping[str, float]
    hop_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    picture: str = ""
    elapsed_seconds: float = 0.0

    @property
    def good(self) -> bool:
        accounted = self.segments_published == self.segments_processed > 0
        return accounted and self.segments_lost == 0 and self.rows_repeated == 0 and self.rows > 0

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "good": self.good}


class _Interrupted(Exception):  # noqa: N818 - a request to stop, not a fault
    """Ctrl-C or SIGTERM."""


def run_demo(options: DemoOptions, console: Console) -> DemoResult:
    """Run it all. Nothing is left running afterwards, however it ends."""
    configure_logs("demo", log_format="console", level="warning")
    started = time.monotonic()
    if options.folder.exists():
        shutil.rmtree(options.folder)
    options.folder.mkdir(parents=True)
    with _stopped_by_signals(), Stack(options.folder, partitions=options.streams) as stack:
        console.print(f"[bold]Skyscraper demo[/]: {options.streams} street cameras, one fixed configuration each")
        cameras = _prepare(options, stack, console)
        watch = Watch(stack.client)
        try:
            _show(options, stack, watch, console)
            result = _summarise(stack, watch, cameras, console, started)
            if options.keep_running:
                _keep_running(stack, cameras, console)
        finally:
            watch.close()
    return result


def _prepare(options: DemoOptions, stack: Stack, console: Console) -> Sequence[Camera]:
    with console.status("") as status:
        status.update("fetching and converting the detector (once) ...")
        install_models([MODEL], say=lambda text: status.update(f"{text} ..."))
        status.update("starting Kafka ...")
        stack.start_broker()
        stack.add_inference(models=[MODEL])
        stack.add_decoder()
        stack.add_loader()
        stack.start()
        status.update("rendering the street cameras (once) ...")
        cameras = render_cameras(CAMERAS[: options.streams], status.update)
        status.update("waiting for the services ...")
        stack.wait_ready()
        stack.add_publisher([camera.stream(PIPELINE, CONFIGURATION) for camera in cameras])
        stack.start("publisher")
        stack.wait_ready("publisher")
    console.print(f"Kafka at {stack.broker.bootstrap_servers}; logs in {stack.folder / 'logs'}")
    return cameras


def _show(options: DemoOptions, stack: Stack, watch: Watch, console: Console) -> None:
    """Follow the run for its time, then stop the cameras and let the rest drain."""
    deadline = time.monotonic() + options.seconds
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        while time.monotonic() < deadline:
            watch.poll(_TURN_SECONDS)
            stack.check()
            live.update(_table(stack, watch))
        stack.terminate("publisher")
        drained = time.monotonic() + _DRAIN_SECONDS
        while watch.accounted() < watch.published():
            if time.monotonic() >= drained:
                raise StackError(
                    f"{watch.published() - watch.accounted()} segments were not processed within {_DRAIN_SECONDS:g} s "
                    f"after the cameras stopped; see the logs in {stack.folder / 'logs'}"
                )
            watch.poll(_TURN_SECONDS)
            stack.check("decoder", "inference", "loader")
            live.update(_table(stack, watch))
    console.print(_table(stack, watch))


def _table(stack: Stack, watch: Watch) -> Table:
    table = Table(show_edge=False, header_style="bold")
    for name in ("stream", "segments", "frames/s", "lag s", "backlog", "headroom", "rows", "rows/s"):
        table.add_column(name, justify="left" if name == "stream" else "right")
    bounds = watch.bounds(topics.SEGMENTS)
    retention = Retention(stack.retention_seconds, stack.retention_bytes_per_partition)
    for view in sorted(watch.totals.streams.values(), key=lambda one: one.stream_id):
        low, high = bounds[view.partition]
        waiting = high - low - view.processed - view.dead_lettered - view.duplicates
        video = max(view.video_seconds, 1e-6)
        mean_bytes = view.segment_bytes / max(1, view.processed)
        backlog = Backlog(view.lag_seconds if waiting else 0.0, int(waiting * mean_bytes), view.segment_bytes / video)
        table.add_row(
            view.stream_id,
            str(view.processed),
            f"{view.frames / video:.1f}",
            f"{view.lag_seconds:.1f}",
            str(max(0, waiting)),
            _hours(headroom_seconds(backlog, retention)),
            str(view.rows),
            f"{view.rows / video:.1f}",
        )
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _summarise(stack: Stack, watch: Watch, cameras: Sequence[Camera], console: Console, started: float) -> DemoResult:
    messages = _read_rows(stack, watch)
    places = score.last_row_offsets(messages)
    catalog, namespace = open_catalog(stack.catalog), stack.catalog.namespace
    visible = _wait_until_loaded(stack, places)
    rows, repeated = score.repeated_rows(catalog, namespace)
    seen = [one for one in watch.totals.reports if one.report.outcome == report_pb2.OUTCOME_PROCESSED]
    latencies = score.measure_latencies(seen, visible)
    sightings = score.sightings_by_segment(catalog, namespace, "person")
    errors = []
    counts = Table(show_edge=False, header_style="bold")
    for name in ("stream", "scene", "rows", "people seen", "people true", "count error"):
        counts.add_column(name, justify="left" if name in ("stream", "scene") else "right")
    for camera in cameras:
        reports = [one.report for one in seen if one.report.stream_id == camera.stream_id]
        compared = score.compare_counts(reports, sightings, camera.truth())
        if compared is not None:
            errors.append(compared.error)
            shown = (f"{compared.counted:.2f}", f"{compared.truth:.2f}", f"{compared.error:.0%}")
            counts.add_row(camera.stream_id, camera.scene, str(sum(report.rows for report in reports)), *shown)
    console.print(
        "\n[bold]Counted people against the truth[/] (means in view; people are real pixels on a real street,"
    )
    console.print("their paths are replayed; dusk and night are simulated light)")
    console.print(counts)
    picture = draw_picture(stack.client, seen, messages, stack.folder / "street.png")
    totals = watch.totals.streams.values()
    published, processed = watch.published(), sum(view.processed for view in totals)
    dead = sum(view.dead_lettered for view in totals)
    result = DemoResult(
        segments_published=published,
        segments_processed=processed,
        segments_lost=published - watch.accounted() + sum(view.lost for view in totals),
        dead_letters=dead,
        rows=rows,
        rows_repeated=repeated,
        count_error=round(sum(errors) / len(errors), 4) if errors else float("nan"),
        latency_seconds=score.percentiles(latencies.total),
        hop_seconds={hop: score.percentiles(values) for hop, values in latencies.hops.items()},
        picture=str(picture),
        elapsed_seconds=round(time.monotonic() - started, 1),
    )
    _print_summary(result, stack, console)
    return result


def _print_summary(result: DemoResult, stack: Stack, console: Console) -> None:
    table = Table(
        show_edge=False, header_style="bold", title="Seconds from a segment's last frame to its rows in Iceberg"
    )
    for name in ("hop", "p50", "p95", "p99"):
        table.add_column(name, justify="left" if name == "hop" else "right")
    meaning = {
        "publish": "publish: camera to Kafka",
        "wait": "wait: in Kafka, the buffer",
        "process": "process: decode, detect, track",
        "commit": "commit: until its transaction",
        "load": "load: until its Iceberg snapshot",
    }
    for hop, values in result.hop_seconds.items():
        table.add_row(meaning[hop], *(f"{value:.2f}" for value in values.values()))
    table.add_row("[bold]end to end[/]", *(f"{value:.2f}" for value in result.latency_seconds.values()))
    console.print()
    console.print(table)
    verdict = "[green]good[/]" if result.good else "[red]NOT good[/]"
    console.print(
        f"\nsegments published {result.segments_published} = processed {result.segments_processed}, "
        f"lost {result.segments_lost}, dead letters {result.dead_letters}; "
        f"rows {result.rows}, repeated {result.rows_repeated}: {verdict} ({result.elapsed_seconds:.0f} s in all)"
    )
    console.print(f"picture: {result.picture}")
    console.print("try next:")
    console.print(
        f'  uv run skyscraper query --warehouse {stack.catalog.warehouse_path} "{_NEXT_QUERY}"', soft_wrap=True
    )


def _read_rows(stack: Stack, watch: Watch) -> list[Message]:
    """Every committed row on the bus."""
    topic = topics.rows_topic(PIPELINE)
    consumer = Consumer(
        {
            **stack.client,
            "group.id": "skyscraper-demo-rows",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    try:
        ends = {partition: high for partition, (_, high) in watch.bounds(topic).items() if high > 0}
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        messages: list[Message] = []
        deadline = time.monotonic() + _DRAIN_SECONDS
        while ends and time.monotonic() < deadline:
            messages += [message for message in consumer.consume(1000, timeout=0.2) if message.error() is None]
            for position in consumer.position([TopicPartition(topic, partition) for partition in ends]):
                if position.offset >= ends[position.partition]:
                    del ends[position.partition]
        return messages
    finally:
        consumer.close()


def _wait_until_loaded(stack: Stack, places: Mapping[str, tuple[int, int]]) -> Mapping[str, float]:
    """When each segment's rows could be queried. Raises StackError where the loader does not get there."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    catalog = open_catalog(stack.catalog)
    while True:
        visible = score.visible_times(catalog, f"{stack.catalog.namespace}.{PIPELINE}", places)
        if len(visible) == len(places):
            return visible
        if time.monotonic() >= deadline:
            raise StackError(f"the loader has {len(visible)} of {len(places)} segments after {_DRAIN_SECONDS:g} s")
        stack.check("loader")
        time.sleep(0.2)


def _keep_running(stack: Stack, cameras: Sequence[Camera], console: Console) -> None:
    console.print("\ncameras run on; Ctrl-C ends everything")
    stack.start("publisher")
    with contextlib.suppress(_Interrupted):
        while True:
            time.sleep(_TURN_SECONDS)
            stack.check()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM unwind the demo, so that everything it started is stopped; a second one does not interrupt
    that."""
    once = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if not once.is_set():
            once.set()
            raise _Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Interrupted as error:
        raise SystemExit(130 if str(error) == "SIGINT" else 143) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
