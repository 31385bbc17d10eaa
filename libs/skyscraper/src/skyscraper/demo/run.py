"""The demo: street cameras through every service on a real broker, watched, and then judged against the truth."""

from __future__ import annotations

import contextlib
import os
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
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.profiles import publish_profile
from skyscraper.bus.reports import Seen, seconds
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds
from skyscraper.demo import score
from skyscraper.demo.calibrate import measure_machine, scale_work
from skyscraper.demo.cameras import Camera, cameras, render
from skyscraper.demo.compare import DayRun, day_run
from skyscraper.demo.day_picture import draw_day
from skyscraper.demo.picture import draw_picture
from skyscraper.demo.stack import Stack, StackError
from skyscraper.demo.watch import Watch
from skyscraper.lakehouse.catalog import open_catalog
from skyscraper.models.repository import install_models
from skyscraper.profile.codec import decode_fit
from skyscraper.profile.fit import Fit
from skyscraper.profile.load import load_profile
from skyscraper.service.logs import configure_logs
from skyscraper.v1 import report_pb2

PIPELINE = "counting"
# What the offline phase learned on cameras like these, but not on these (see docs/how-to/simulate-a-trace.md).
PROFILE = Path(__file__).parent / "counting.pb"
# The pool has this part of what the dearest configuration would take for all cameras, or this part of the machine where
# that is less: broker, cameras, loader and this process need the rest.
_POOL_SHARE, _MACHINE_SHARE = 1 / 3, 0.4
# The buffer of the compressed day: hours of content, as the days of retention of a real installation.
_BUFFER_SHARE_OF_DAY = 0.2
# Content changes within a quarter of an hour; shorter slots of a compressed day would hold too few segments.
_SLOTS_PER_DAY, _LEAST_SLOT_SECONDS = 48, 6.0
# A clip of some segments tells how fast the machine is.
_CALIBRATION_SECONDS = 8
# Launching a publisher until its first frame.
_LAUNCH_SECONDS = 2.5
# Plans, after the tuner has started.
_PLAN_SECONDS = 30.0

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
    """What the demo proves. `good` where nothing was lost or repeated and every segment is accounted for.

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
    latency_seconds: Mapping[str, float]
    hop_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    picture: str = ""
    day_picture: str = ""
    elapsed_seconds: float = 0.0

    @property
    def good(self) -> bool:
        accounted = self.segments_published == self.segments_processed > 0
        return accounted and self.segments_lost == 0 and self.rows_repeated == 0 and self.rows > 0

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "good": self.good}


class _Interrupted(Exception):  # noqa: N818 - a request to stop, not a fault
    """Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class Scenario:
    """What both runs share."""

    cameras: Sequence[Camera]
    fit: Fit
    pool_cores: float
    dearest_cores: float
    """What the dearest configuration would take for all cameras."""
    day_seconds: int
    static: Mapping[str, str]
    """The best configuration that fits the pool at all hours."""


def run_demo(options: DemoOptions, console: Console) -> DemoResult:
    """Run it all. Nothing is left running afterwards, however it ends."""
    configure_logs("demo", log_format="console", level="warning")
    started = time.monotonic()
    if options.folder.exists():
        shutil.rmtree(options.folder)
    options.folder.mkdir(parents=True)
    with _stopped_by_signals(), Stack(options.folder, partitions=options.streams) as stack:
        scenario = _prepare(options, stack, console)
        watch = Watch(stack.client)
        try:
            runs = [_run_day("static", scenario, stack, watch, console)]
            _start_tuner(scenario, stack, console)
            runs.append(_run_day("skyscraper", scenario, stack, watch, console))
            result = _summarise(stack, watch, scenario, runs, console, started)
            if options.keep_running:
                _keep_running(stack, console)
        finally:
            watch.close()
    return result


def plan_scenario(fit: Fit, streams: int, day_seconds: int) -> Scenario:
    """Cameras, and a pool too small for them."""
    dearest = streams * float(fit.work.rate[-1])
    cores = min(_POOL_SHARE * dearest, _MACHINE_SHARE * (os.cpu_count() or 1))
    fits = [k for k, rate in enumerate(fit.work.rate) if rate * streams <= cores]
    best = max(fits, key=lambda k: fit.mean_quality[k], default=0)
    return Scenario(cameras(streams, day_seconds), fit, cores, dearest, day_seconds, fit.configurations[best])


def _prepare(options: DemoOptions, stack: Stack, console: Console) -> Scenario:
    message = load_profile(PROFILE)
    with console.status("") as status:
        status.update("fetching and converting the detectors (once) ...")
        models = sorted({one.knobs["model"] for one in message.fit.configurations})
        install_models(models, say=lambda text: status.update(f"{text} ..."))
        status.update("measuring how fast this machine is ...")
        scale_work(message.fit, measure_machine(message.fit, cameras(1, _CALIBRATION_SECONDS)[0]))
    scenario = plan_scenario(decode_fit(message.fit), options.streams, options.seconds)
    console.print(
        f"[bold]Skyscraper demo[/]: {options.streams} street cameras show a day in {options.seconds} s. The pool has "
        f"{scenario.pool_cores:.2f} cores; the dearest configuration would take "
        f"{scenario.dearest_cores:.2f} for all of them."
    )
    with console.status("") as status:
        status.update("starting Kafka ...")
        stack.start_broker()
        publish_profile(stack.client, message)
        stack.add_inference(models=models)
        stack.add_decoder(
            control={
                "pool_cores": scenario.pool_cores,
                "limit_seconds": max(_BUFFER_SHARE_OF_DAY * options.seconds, 4 * scenario.fit.segment_seconds),
            }
        )
        stack.add_loader()
        stack.start()
        status.update("rendering the street cameras (once) ...")
        render(list(scenario.cameras), status.update, threads=os.cpu_count() or 1)
        status.update("waiting for the services ...")
        stack.wait_ready()
    console.print(f"Kafka at {stack.broker.bootstrap_servers}; logs in {stack.folder / 'logs'}")
    return scenario


def _start_tuner(scenario: Scenario, stack: Stack, console: Console) -> None:
    """The tuner, and its first plan. The content's day begins when the next run does."""
    begins = time.time() + _PLAN_SECONDS
    # A hair longer or shorter than asked for, so that a whole number of days has passed since 1970 just then.
    day_seconds = begins / round(begins / scenario.day_seconds)
    slots = max(1, min(_SLOTS_PER_DAY, int(day_seconds / _LEAST_SLOT_SECONDS)))
    stack.add_tuner(
        pool_cores=scenario.pool_cores,
        day_seconds=day_seconds,
        slot_seconds=day_seconds / slots,
        plan_interval_seconds=5.0,
        lease_seconds=30.0,
        limit_seconds=max(_BUFFER_SHARE_OF_DAY * day_seconds, 4 * scenario.fit.segment_seconds),
    )
    stack.start("tuner")
    with console.status("the tuner plans the next day, from the profile and what it saw of this one ..."):
        stack.wait_ready("tuner")
        while time.time() < begins - _LAUNCH_SECONDS:
            stack.check()
            time.sleep(0.05)
    plans = read_compacted(stack.client, topics.PLANS, deadline_seconds=_DRAIN_SECONDS)
    if not any(topics.POOL_KEY in table for table in plans.values()):
        raise StackError(f"the tuner made no plan within {_PLAN_SECONDS:g} s; see {stack.log_path('tuner')}")


def _run_day(name: str, scenario: Scenario, stack: Stack, watch: Watch, console: Console) -> DayRun:
    """One day of all cameras, until its last segment is processed."""
    publisher = f"publisher-{name}"
    before, first = watch.published(), len(watch.totals.reports)
    count = round(scenario.day_seconds / scenario.fit.segment_seconds)
    stack.add_publisher([camera.stream(PIPELINE, scenario.static, count) for camera in scenario.cameras], publisher)
    stack.start(publisher)
    expected = before + len(scenario.cameras) * count
    deadline = time.monotonic() + scenario.day_seconds + _DRAIN_SECONDS
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        while watch.accounted() < expected or watch.published() < expected:
            if time.monotonic() >= deadline:
                raise StackError(
                    f"{name}: {watch.accounted() - before} of {expected - before} segments were processed "
                    f"{_DRAIN_SECONDS:g} s after the day's end; see the logs in {stack.folder / 'logs'}"
                )
            watch.poll(_TURN_SECONDS)
            stack.check()
            live.update(_table(name, stack, watch))
    console.print(_table(name, stack, watch))
    seen = watch.totals.reports[first:]
    begun = min(seconds(one.report.event_time) for one in seen)
    return day_run(name, seen, start_seconds=begun, day_seconds=scenario.day_seconds)


def _table(name: str, stack: Stack, watch: Watch) -> Table:
    table = Table(show_edge=False, header_style="bold", title=name)
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


def _summarise(
    stack: Stack, watch: Watch, scenario: Scenario, runs: Sequence[DayRun], console: Console, started: float
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
