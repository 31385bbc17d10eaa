"""Burst machines that are taken away, with notice and without: nothing lost, nothing repeated, drained in time.

Every segment may burst (the pool is far too small), so machines hold work whenever they go.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skyscraper.bus.profiles import publish_profile
from skyscraper.demo.day import PROFILE
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.models.repository import install_models
from skyscraper.profile.load import load_profile
from skyscraper.v1 import report_pb2

# 50 in full; each takes about 8 s.
KILLS = int(os.environ.get("SKYSCRAPER_SPOT_KILLS", "6"))

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(900 + 60 * KILLS)]

STREAMS = 2
# Longer than the interruptions take; on a slow machine the rest is worked off afterwards.
SEGMENTS_PER_STREAM = 20 + 4 * KILLS
CAMERA = "street:people?density=12&fps=5&seconds=24&seed={}"
MACHINES = ("spot-a", "spot-b")
# The notices of the clouds, and none at all.
NOTICES_SECONDS = (120.0, 30.0, 0.0)
POOL_CORES = 0.5
LIMIT_SECONDS = 600.0
SEED = 7


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    message = load_profile(PROFILE)
    models = sorted({one.knobs["model"] for one in message.fit.configurations})
    install_models(models)
    with Stack(tmp_path, partitions=STREAMS) as stack:
        stack.start_broker()
        publish_profile(stack.client, message)
        # Machines come back dozens of times; what warming up is good for is not what is tested.
        cold: dict[str, Any] = {"models": models, "warmup_shapes": [{"height": 32, "width": 32}]}
        stack.add_inference(**cold)
        for name in MACHINES:
            stack.add_burst_machine(name, **cold, shutdown_seconds=max(NOTICES_SECONDS))
        stack.add_gateway(budgets={"default": {"usd": 100.0}})
        # However slow the machine that runs this test is, segments are sent away.
        stack.add_decoder(
            burst={"longest_segments": 10.0, "round_trip_seconds": 5.0},
            control={"pool_cores": POOL_CORES, "limit_seconds": LIMIT_SECONDS},
        )
        stack.add_tuner(
            pool_cores=POOL_CORES,
            plan_interval_seconds=2.0,
            lease_seconds=10.0,
            limit_seconds=LIMIT_SECONDS,
            usd_per_day=1.0,
        )
        stack.add_publisher(
            [
                {
                    "id": f"gate-{number}",
                    "source": CAMERA.format(number),
                    "pipeline": "counting",
                    "loop": True,
                    "max_segments": SEGMENTS_PER_STREAM,
                }
                for number in range(1, STREAMS + 1)
            ]
        )
        yield stack


def take_away(stack: Stack, watch: Watch, name: str, notice_seconds: float) -> float:
    """SIGTERM, and SIGKILL when the notice is over, as a cloud does it. Seconds that it took to drain, if it did."""
    if notice_seconds == 0:
        stack.kill(name)
        return 0.0
    process = stack.services[name].process
    assert process is not None
    begun = time.monotonic()
    process.terminate()
    while process.poll() is None and time.monotonic() - begun < notice_seconds:
        watch.poll(0.1)
    took = time.monotonic() - begun
    if process.poll() is None:
        stack.kill(name)
    return took


def test_machines_that_are_taken_away_lose_and_repeat_nothing(stack: Stack) -> None:
    rng = random.Random(SEED)
    stack.start()
    stack.wait_ready()
    watch = Watch(stack.client)
    deadline = time.monotonic() + 240
    while sum(one.report.decision.placement == report_pb2.PLACE_BURST for one in watch.totals.reports) < 2 * STREAMS:
        assert time.monotonic() < deadline, "nothing was sent to burst machines"
        watch.poll(0.5)
    before = len(watch.totals.reports)
    drained: dict[float, list[float]] = {notice: [] for notice in NOTICES_SECONDS}
    for number in range(KILLS):
        notice, name = NOTICES_SECONDS[number % len(NOTICES_SECONDS)], rng.choice(MACHINES)
        drained[notice].append(take_away(stack, watch, name, notice))
        watch.poll(rng.uniform(0.2, 2.0))
        stack.start(name)
        stack.wait_ready(name)
        watch.poll(rng.uniform(0.5, 3.0))
    during = [one.report for one in watch.totals.reports[before:]]
    assert during, "nothing was processed meanwhile"
    expected = STREAMS * SEGMENTS_PER_STREAM
    deadline = time.monotonic() + 300 + 30 * KILLS
    while watch.accounted() < expected:
        assert time.monotonic() < deadline, f"{watch.accounted()} of {expected} segments are accounted for"
        watch.poll(0.5)
    reports = [one.report for one in watch.totals.reports]
    watch.close()
    processed = [one for one in reports if one.outcome == report_pb2.OUTCOME_PROCESSED]
    away = [one for one in during if one.decision.placement == report_pb2.PLACE_BURST]
    latencies = [(one.finished_time.ToMilliseconds() - one.published_time.ToMilliseconds()) / 1000 for one in during]
    failures: dict[str, int] = {}
    for one in during:
        if one.decision.burst_failure:
            failures[one.decision.burst_failure] = failures.get(one.decision.burst_failure, 0) + 1
    told = {
        "kills": KILLS,
        "segments": len(processed),
        "segments_during": len(during),
        "burst_during": len(away),
        "came_back": failures,
        "latency_seconds_p50": round(float(np.percentile(latencies, 50)), 2),
        "latency_seconds_p99": round(float(np.percentile(latencies, 99)), 2),
        "drain_seconds_most": {str(notice): round(max(took, default=0.0), 2) for notice, took in drained.items()},
    }
    print(json.dumps(told))
    assert len({one.segment_id for one in processed}) == len(processed) == expected, "lost, repeated or dead"
    assert len(away) > 0
    for notice, took in drained.items():
        assert all(seconds <= notice for seconds in took), told
