"""Every row of the topic is in the table once, whatever happens to loaders."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.broker

_KILLS = 10
Eventually = Callable[..., None]


def test_a_loader_killed_at_any_moment_neither_loses_nor_repeats_a_row(place: Any) -> None:
    rng, stop = random.Random(4), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            place.write(range(number, number + 20))
            number += 20
            stop.wait(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        loader = place.loader()
        for _ in range(_KILLS):
            # Start-up, the first reads and commits, and steady running all lie in this span.
            time.sleep(rng.uniform(0.5, 2.5))
            loader.kill()
            loader.start()
    finally:
        stop.set()
        writer.join(40)
    place.wait_loaded()


def test_of_two_loaders_one_is_killed_and_the_other_takes_its_partitions(place: Any, eventually: Eventually) -> None:
    first, second = place.loader("first"), place.loader("second")
    place.write(range(300))
    place.wait_loaded()
    eventually(lambda: first.said("partitions_assigned") and second.said("partitions_assigned"))
    first.kill()
    place.write(range(300, 600))
    place.wait_loaded()


def test_a_frozen_loader_that_wakes_up_repeats_nothing(place: Any, eventually: Eventually) -> None:
    zombie = place.loader("zombie", commit_interval_seconds=2.0)
    place.write(range(100))
    place.wait_loaded()
    # It holds rows that are not committed yet when it freezes.
    place.write(range(100, 400))
    time.sleep(0.5)
    zombie.signal(signal.SIGSTOP)
    place.loader("successor")
    place.wait_loaded()
    zombie.signal(signal.SIGCONT)
    place.write(range(400, 700))
    place.wait_loaded()
    # The zombie has had its turn: commits after this are its own.
    time.sleep(3.0)
    place.wait_loaded()


def test_sigterm_commits_what_is_held(place: Any, eventually: Eventually) -> None:
    loader = place.loader(commit_interval_seconds=600.0)
    eventually(lambda: loader.said("partitions_assigned"))
    place.write(range(90))
    time.sleep(2.0)
    loader.signal(signal.SIGTERM)
    assert loader.wait() == 0
    place.wait_loaded(seconds=1)


def test_a_query_sees_the_values_that_were_written(place: Any) -> None:
    place.loader()
    place.write(range(30))
    place.wait_loaded()
    [row] = place.query("SELECT * FROM {table} WHERE track_id = 21")
    assert (row["_stream"], row["_segment"], row["_row"]) == ("camera-0", "camera-0/1/21", 0)
    assert (row["confidence"], row["label"], row["event_time"].isoformat()) == (
        3.0,
        "text 21",
        "2026-05-04T12:00:21+00:00",
    )


def test_a_fit_under_its_version_is_no_pipeline(place: Any, eventually: Eventually) -> None:
    version = f"{place.pipeline}#1a2b"
    place.register(pipeline=version)
    loader = place.loader(pipelines=[place.pipeline, version])
    eventually(lambda: loader.said("partitions_assigned"))
    place.write(range(30))
    place.wait_loaded()
    assert version not in place.logs
