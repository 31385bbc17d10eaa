"""The demo: street cameras through every service on a real broker, watched, and then judged against the truth."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition
from rich.console import Console
from rich.table import Table

from skyscraper.bus import topics
from skyscraper.bus.reports import Seen, seconds
from skyscraper.demo import score
from skyscraper.demo.cameras import Camera
from skyscraper.demo.compare import DayRun
from skyscraper.demo.day import PIPELINE, Scenario, prepare, run_day, start_tuner
from skyscraper.demo.day_picture import draw_day
from skyscraper.demo.picture import draw_picture
from skyscraper.demo.spot import Interruptions, burst_result
from skyscraper.demo.stack import Stack, StackError
from skyscraper.demo.watch import Watch
from skyscraper.lakehouse.catalog import open_catalog
from skyscraper.service.logs import configure_logs
from skyscraper.v1 import report_pb2

_NEXT_QUERY = (
    "SELECT _stream, date_trunc('minute', event_time) AS minute, count(DISTINCT track_id) AS people "
    "FROM counting WHERE label = 'person' GROUP BY ALL ORDER BY ALL"
)

_DRAIN_SECONDS = 120.0
_TURN_SECONDS = 1.0


@dataclass(frozen=True)
class DemoOptions:
    seconds: int
    """Length of the compressed day."""
    streams: int
    keep_running: bool
    folder: Path


@dataclass(frozen=True)
class DemoResult:
    """What the demo proves. `good` where nothing was lost or repeated, every segment is accounted for,
    and no more dollars were spent than the budget has.

    By run, `static` and `skyscraper`: quality (mean per segment, object-seconds), core_seconds, usd, count_error
    (against the truth), longest_wait_seconds.
    """

    segments_published: int
    segments_processed: int
    segments_lost: int
    dead_letters: int
    rows: int
    rows_repeated: int
    pool_cores: float
    quality: Mapping[str, float]
    core_seconds: Mapping[str, float]
    usd: Mapping[str, float]
    count_error: Mapping[str, float]
    longest_wait_seconds: Mapping[str, float]
    switches: int
    burst: Mapping[str, float]
    """See `spot.BurstResult`."""
    latency_seconds: Mapping[str, float]
    hop_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    picture: str = ""
    day_picture: str = ""
    elapsed_seconds: float = 0.0

    @property
    def good(self) -> bool:
        accounted = self.segments_published == self.segments_processed > 0
        within_budget = self.burst["spent_usd"] <= self.burst["budget_usd"]
        return accounted and self.segments_lost == 0 and self.rows_repeated == 0 and self.rows > 0 and within_budget

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
        scenario = prepare(stack, console, day_seconds=options.seconds, streams=options.streams, burst=True)
        watch = Watch(stack.client)
        try:
            runs = [run_day("static", scenario, stack, watch, console)]
            start_tuner(scenario, stack, console)
            interruptions = Interruptions(stack)
            runs.append(run_day("skyscraper", scenario, stack, watch, console, interruptions.turn))
            result = _summarise(stack, watch, scenario, runs, console, started, interruptions.done)
            if options.keep_running:
                _keep_running(stack, console)
        finally:
            watch.close()
    return result


def _summarise(
    stack: Stack,
    watch: Watch,
    scenario: Scenario,
    runs: Sequence[DayRun],
    console: Console,
    started: float,
    interruptions: int,
) -> DemoResult:
    messages = _read_rows(stack, watch)
    places = score.last_row_offsets(messages)
    catalog, namespace = open_catalog(stack.catalog), stack.catalog.namespace
    visible = _wait_until_loaded(stack, places)
    rows, repeated = score.repeated_rows(catalog, namespace)
    seen = [one for one in watch.totals.reports if one.report.outcome == report_pb2.OUTCOME_PROCESSED]
    half = len(runs[0].moments)
    latencies = score.measure_latencies(seen[half:], visible)
    sightings = score.sightings_by_segment(catalog, namespace, "person")
    errors = {
        run.name: _count_error(scenario.cameras, part, sightings)
        for run, part in zip(runs, (seen[:half], seen[half:]), strict=True)
    }
    picture = draw_picture(stack.client, seen, messages, stack.folder / "street.png")
    title = f"{len(scenario.cameras)} street cameras, a pool of {scenario.pool_cores:.2f} cores"
    day_picture = draw_day(runs, title, stack.folder / "day.png")
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
        pool_cores=round(scenario.pool_cores, 3),
        quality={run.name: round(run.quality, 4) for run in runs},
        core_seconds={run.name: round(run.core_seconds, 2) for run in runs},
        usd={run.name: round(run.usd, 6) for run in runs},
        count_error=errors,
        longest_wait_seconds={run.name: round(run.longest_wait_seconds, 2) for run in runs},
        switches=runs[-1].switches,
        burst=asdict(burst_result(stack, seen[half:], interruptions)),
        latency_seconds=score.percentiles(latencies.total),
        hop_seconds={hop: score.percentiles(values) for hop, values in latencies.hops.items()},
        picture=str(picture),
        day_picture=str(day_picture),
        elapsed_seconds=round(time.monotonic() - started, 1),
    )
    _print_comparison(scenario, runs, result, console)
    _print_summary(result, stack, console)
    return result


def _count_error(cameras: Sequence[Camera], seen: Sequence[Seen], sightings: Mapping[str, float]) -> float:
    """Mean over cameras of how far the counted people are from the truth, as a share of it."""
    errors = []
    for camera in cameras:
        reports = [one.report for one in seen if one.report.stream_id == camera.stream_id]
        reports.sort(key=lambda report: seconds(report.event_time))
        compared = score.compare_counts(reports, sightings, camera.truth())
        if compared is not None:
            errors.append(compared.error)
    return round(sum(errors) / len(errors), 4) if errors else float("nan")


def _print_comparison(scenario: Scenario, runs: Sequence[DayRun], result: DemoResult, console: Console) -> None:
    static, adaptive = runs
    console.print(
        "\n[bold]The same footage, the same cores[/] (people are real pixels on a real street; their paths are "
        "replayed, crowds and light follow a simulated day)"
    )
    table = Table(show_edge=False, header_style="bold")
    for name in ("", static.name, adaptive.name):
        table.add_column(name, justify="left" if not name else "right")
    chosen = " ".join(f"{name}={value}" for name, value in scenario.static.items())
    table.add_row("configuration", f"{chosen}, the best that fits", f"{adaptive.configurations} used")
    table.add_row("changes of it", "0", str(adaptive.switches))
    gain = adaptive.quality / static.quality - 1 if static.quality else float("nan")
    table.add_row("quality per segment", f"{static.quality:.2f}", f"[bold]{adaptive.quality:.2f}[/] ({gain:+.0%})")
    table.add_row("people counted wrong", *(f"{result.count_error[run.name]:.1%}" for run in runs))
    table.add_row("core-seconds", *(f"{run.core_seconds:.0f}" for run in runs))
    table.add_row("equivalent dollars", *(f"{run.usd:.5f}" for run in runs))
    table.add_row("longest wait in the buffer", *(f"{run.longest_wait_seconds:.1f} s" for run in runs))
    console.print(table)
    burst = result.burst
    console.print(
        f"burst pool: {burst['segments']} segments for {burst['spent_usd']:.6f} of {burst['budget_usd']:.6f} USD; "
        f"machines were taken away {burst['interruptions']} times, {burst['came_back']} segments came back to the pool"
    )
    needed = _static_cores(scenario, adaptive.quality / static.quality if static.quality else 1.0)
    if needed is not None:
        console.print(
            f"by the profile, a static configuration of that quality takes {needed:.2f} cores, "
            f"{needed / scenario.pool_cores:.1f} times the pool"
        )


def _static_cores(scenario: Scenario, gain: float) -> float | None:
    """Cores of the cheapest static configuration that is better than the static one by the factor; None: none is."""
    fit, streams = scenario.fit, len(scenario.cameras)
    static = fit.configurations.index(dict(scenario.static))
    better = [
        rate * streams
        for rate, quality in zip(fit.work.rate, fit.mean_quality, strict=True)
        if quality >= gain * fit.mean_quality[static]
    ]
    return float(min(better)) if better else None


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
    console.print(f"pictures: {result.day_picture} (the day), {result.picture} (one frame as the table sees it)")
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


def _keep_running(stack: Stack, console: Console) -> None:
    console.print("\nthe day begins again and again; Ctrl-C ends everything. Try: skyscraper top")
    with contextlib.suppress(_Interrupted):
        while True:
            stack.start("publisher-skyscraper")
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
