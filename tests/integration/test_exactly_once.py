"""Promises 1 and 2 of the design: nothing lost, nothing twice, whatever is killed and whenever.

The same segments (fixed epoch and start time) go through an undisturbed installation and through one whose decoders,
inference, loader and broker are killed with SIGKILL at random moments. Afterwards both Iceberg tables must hold the
same rows.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.lakehouse.catalog import open_catalog
from skyscraper.lakehouse.query import run_query
from skyscraper.models.repository import install_models

pytestmark = [pytest.mark.broker, pytest.mark.models]

# 32 in full, about five minutes.
KILLS = int(os.environ.get("SKYSCRAPER_KILLS", "12"))
STREAMS = 3
# Two seconds each, at real pace: cameras outlast the kills.
SEGMENTS_PER_STREAM = 5 + 2 * KILLS
SEED = 20231
MODEL = "nanodet-g"
# Cheap, so that two cores keep up beside restarts; what is computed does not matter here, only that it is equal.
CONFIGURATION = {"model": MODEL, "frame_rate": "2", "input_size": "224"}
START_TIME = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)
# A broker that is just starting must not be the one to close a transaction (docs/decisions/0008): what a kill leaves
# open is closed by the killed decoder's own restart.
TRANSACTION_SECONDS = 30.0
BROKER = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "60000"}
# Without any progress; a slow machine may take its time, a stuck one may not.
STALL_SECONDS = 120.0


def cameras(pace: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"gate-{number}",
            "source": f"street:people?seed={number}&density=5&seconds=24",
            "pipeline": "counting",
            "configuration": CONFIGURATION,
            "loop": True,
            "pace": pace,
            "epoch": 1,
            "start_time": START_TIME.isoformat(),
            "max_segments": SEGMENTS_PER_STREAM,
        }
        for number in range(STREAMS)
    ]


def open_stack(folder: Path) -> Stack:
    install_models([MODEL])
    stack = Stack(folder, partitions=STREAMS, broker_settings=BROKER)
    stack.start_broker()
    stack.add_inference(models=[MODEL], warmup_shapes=[{"height": 224, "width": 224}])
    for name in ("decoder-a", "decoder-b"):
        stack.add_decoder(name, session_timeout_seconds=3.0, transaction_timeout_seconds=TRANSACTION_SECONDS)
    stack.add_loader(session_timeout_seconds=3.0, maintenance={"interval_seconds": 5.0})
    return stack


def wait_for(stack: Stack, goal: int, count: Callable[[], int], what: str) -> None:
    """Until `count` reaches `goal`; fails where it stands still for STALL_SECONDS."""
    last, deadline = -1, 0.0
    while (found := count()) < goal:
        stack.check("decoder-a", "decoder-b", "inference", "loader")
        if found > last:
            last, deadline = found, time.monotonic() + STALL_SECONDS
        assert time.monotonic() < deadline, f"{found} of {goal} {what}, and no more for {STALL_SECONDS:g} s"
        time.sleep(0.2)


def wait_until_loaded(stack: Stack, watch: Watch, published: int) -> list[dict[str, Any]]:
    """The table once every published segment is accounted for and its rows are loaded."""

    def accounted() -> int:
        watch.poll(0.5)
        return watch.accounted()

    wait_for(stack, published, accounted, "segments are accounted for")
    expected = sum(view.rows for view in watch.totals.streams.values())
    wait_for(stack, expected, lambda: len(table(stack)), "rows are loaded")
    # A repeated row would come late: give it the time of a few commits.
    time.sleep(3)
    return table(stack)


def table(stack: Stack) -> list[dict[str, Any]]:
    sql = "SELECT * FROM counting ORDER BY _stream, _segment, _row"
    rows: list[dict[str, Any]] = run_query(open_catalog(stack.catalog), stack.catalog.namespace, sql).to_pylist()
    return rows


def kill_at_random(stack: Stack, watch: Watch, rng: random.Random) -> Counter[str]:
    """Kill and restart one process after another; one in four stays dead beyond the session timeout, so that its
    partitions go to others."""
    kills: Counter[str] = Counter()
    victims: Sequence[str] = ("decoder-a", "decoder-b", "inference", "loader", "broker")
    while kills.total() < KILLS:
        watch.poll(rng.uniform(0.2, 2.5))
        victim = rng.choice(victims)
        kills[victim] += 1
        if victim == "broker":
            stack.broker.kill()
            time.sleep(rng.uniform(0, 1))
            stack.broker.start()
        else:
            stack.kill(victim)
            time.sleep(5.0 if rng.random() < 0.25 else rng.uniform(0, 0.5))
            stack.start(victim)
    return kills


@pytest.mark.timeout(900)
def test_kills_change_no_row(tmp_path: Path) -> None:
    with open_stack(tmp_path / "undisturbed") as stack:
        stack.start()
        stack.wait_ready()
        stack.add_publisher(cameras("max"))
        stack.start("publisher")
        watch = Watch(stack.client)
        undisturbed = wait_until_loaded(stack, watch, STREAMS * SEGMENTS_PER_STREAM)
        watch.close()
    with open_stack(tmp_path / "disturbed") as stack:
        stack.start()
        stack.wait_ready()
        stack.add_publisher(cameras("real"))
        stack.start("publisher")
        watch = Watch(stack.client)
        kills = kill_at_random(stack, watch, random.Random(SEED))
        publisher = stack.services["publisher"].process
        assert publisher is not None
        assert publisher.wait(300) == 0, "the publisher failed"
        published = watch.published()
        disturbed = wait_until_loaded(stack, watch, published)
        lost = sum(view.lost for view in watch.totals.streams.values())
        dead = sum(view.dead_lettered for view in watch.totals.streams.values())
        watch.close()
    print(json.dumps({"kills": kills, "published": published, "rows": len(disturbed), "lost": lost, "dead": dead}))
    assert kills.total() == KILLS
    assert (lost, dead) == (0, 0)
    assert len(undisturbed) > STREAMS * SEGMENTS_PER_STREAM / 2
    assert disturbed == undisturbed
