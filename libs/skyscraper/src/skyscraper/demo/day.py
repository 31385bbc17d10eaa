"""One compressed day of street cameras on a local installation: what the demo and the live benchmark run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.profiles import publish_profile
from skyscraper.bus.reports import seconds
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds
from skyscraper.demo.calibrate import measure_machine, scale_work
from skyscraper.demo.cameras import Camera, cameras, render
from skyscraper.demo.compare import DayRun, day_run
from skyscraper.demo.spot import USD_PER_CORE_HOUR, add_burst_pool, budget_usd
from skyscraper.demo.stack import Stack, StackError
from skyscraper.demo.watch import Watch
from skyscraper.models.repository import install_models
from skyscraper.profile.codec import decode_fit
from skyscraper.profile.fit import Fit
from skyscraper.profile.load import load_profile

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
# For the last segments, after the day's end.
_DRAIN_SECONDS = 120.0
_TURN_SECONDS = 1.0
# Plans, after the tuner has started.
_PLAN_SECONDS = 30.0


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
    burst_usd: float = 0.0
    """Dollars that a day may spend on burst machines; 0: there are none."""


def plan_scenario(fit: Fit, streams: int, day_seconds: int) -> Scenario:
    """Cameras, and a pool too small for them."""
    dearest = streams * float(fit.work.rate[-1])
    cores = min(_POOL_SHARE * dearest, _MACHINE_SHARE * (os.cpu_count() or 1))
    fits = [k for k, rate in enumerate(fit.work.rate) if rate * streams <= cores]
    best = max(fits, key=lambda k: fit.mean_quality[k], default=0)
    return Scenario(cameras(streams, day_seconds), fit, cores, dearest, day_seconds, fit.configurations[best])


def limit_seconds(fit: Fit, day_seconds: float) -> float:
    """How far the pool may lag."""
    return max(_BUFFER_SHARE_OF_DAY * day_seconds, 4 * fit.segment_seconds)


def slots(day_seconds: float) -> int:
    """Of prices and statistics in a day."""
    return max(1, min(_SLOTS_PER_DAY, int(day_seconds / _LEAST_SLOT_SECONDS)))


def prepare(stack: Stack, console: Console, *, day_seconds: int, streams: int, burst: bool = False) -> Scenario:
    """Everything that a run needs but cameras and tuner: broker, models, services, the profile of this machine; with
    `burst`, a burst pool."""
    message = load_profile(PROFILE)
    with console.status("") as status:
        status.update("fetching and converting the detectors (once) ...")
        models = sorted({one.knobs["model"] for one in message.fit.configurations})
        install_models(models, say=lambda text: status.update(f"{text} ..."))
        status.update("measuring how fast this machine is ...")
        scale_work(message.fit, measure_machine(message.fit, cameras(1, _CALIBRATION_SECONDS)[0]))
    scenario = plan_scenario(decode_fit(message.fit), streams, day_seconds)
    if burst:
        scenario = replace(scenario, burst_usd=budget_usd(scenario.pool_cores, day_seconds))
    console.print(
        f"[bold]Skyscraper demo[/]: {streams} street cameras show a day in {day_seconds} s. The pool has "
        f"{scenario.pool_cores:.2f} cores; the dearest configuration would take "
        f"{scenario.dearest_cores:.2f} for all of them."
    )
    with console.status("") as status:
        status.update("starting Kafka ...")
        stack.start_broker()
        publish_profile(stack.client, message)
        stack.add_inference(models=models)
        if burst:
            add_burst_pool(stack, models=models, usd=scenario.burst_usd)
        stack.add_decoder(
            control={
                "pool_cores": scenario.pool_cores,
                "limit_seconds": limit_seconds(scenario.fit, day_seconds),
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


def start_tuner(scenario: Scenario, stack: Stack, console: Console) -> None:
    """The tuner, and its first plan. The content's day begins when the next run does."""
    begins = time.time() + _PLAN_SECONDS
    # A hair longer or shorter than asked for, so that a whole number of days has passed since 1970 just then.
    day_seconds = begins / round(begins / scenario.day_seconds)
    stack.add_tuner(
        pool_cores=scenario.pool_cores,
        day_seconds=day_seconds,
        slot_seconds=day_seconds / slots(scenario.day_seconds),
        plan_interval_seconds=5.0,
        lease_seconds=30.0,
        limit_seconds=limit_seconds(scenario.fit, day_seconds),
        usd_per_day=scenario.burst_usd,
        burst_usd_per_core_hour=USD_PER_CORE_HOUR,
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


def run_day(
    name: str,
    scenario: Scenario,
    stack: Stack,
    watch: Watch,
    console: Console,
    on_turn: Callable[[float], None] = lambda day_share: None,
) -> DayRun:
    """One day of all cameras, until its last segment is processed. `on_turn` is told about every second how much of
    the day is over."""
    publisher = f"publisher-{name}"
    before, first = watch.published(), len(watch.totals.reports)
    count = round(scenario.day_seconds / scenario.fit.segment_seconds)
    stack.add_publisher([camera.stream(PIPELINE, scenario.static, count) for camera in scenario.cameras], publisher)
    stack.start(publisher)
    expected = before + len(scenario.cameras) * count
    started = time.monotonic()
    deadline = started + scenario.day_seconds + _DRAIN_SECONDS
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        while watch.accounted() < expected or watch.published() < expected:
            if time.monotonic() >= deadline:
                raise StackError(
                    f"{name}: {watch.accounted() - before} of {expected - before} segments were processed "
                    f"{_DRAIN_SECONDS:g} s after the day's end; see the logs in {stack.folder / 'logs'}"
                )
            watch.poll(_TURN_SECONDS)
            on_turn((time.monotonic() - started) / scenario.day_seconds)
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
