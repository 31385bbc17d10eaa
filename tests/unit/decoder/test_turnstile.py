"""Streams compete for the pool: the oldest segment first, never more than the cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from skyscraper_decoder.turnstile import Turnstile

WAIT_SECONDS = 10.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def open_lane() -> bool:
    return False


def visit(turnstile: Turnstile, key: int, arrived: float, order: list[int], *, refused: bool = False) -> None:
    turn = turnstile.enter(key, arrived_seconds=arrived, refused=refused, closed=open_lane)
    assert turn is not None
    order.append(key)
    turn.begin(0.0)
    turn.end()


def test_the_oldest_segment_goes_first_and_refused_streams_last() -> None:
    turnstile = Turnstile(own_cores=1.0, concurrent=1, clock=Clock())
    first = turnstile.enter(0, arrived_seconds=0.0, refused=False, closed=open_lane)
    assert first is not None
    order: list[int] = []
    lanes = [(1, 30.0, False), (2, 10.0, False), (3, 20.0, False), (4, 1.0, True)]
    threads = [
        threading.Thread(target=visit, args=(turnstile, key, arrived, order), kwargs={"refused": refused})
        for key, arrived, refused in lanes
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(turnstile._waiting) == 4)
    first.begin(0.0)
    first.end()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert order == [2, 3, 1, 4]


def test_a_segment_waits_until_what_was_begun_is_done() -> None:
    clock = Clock()
    turnstile = Turnstile(own_cores=2.0, concurrent=8, clock=clock)
    first = turnstile.enter(0, arrived_seconds=0.0, refused=False, closed=open_lane)
    assert first is not None
    first.begin(6.0)
    order: list[int] = []
    thread = threading.Thread(target=visit, args=(turnstile, 1, 0.0, order))
    thread.start()
    clock.seconds = 2.9
    time.sleep(0.3)
    assert order == []
    clock.seconds = 3.0
    thread.join(WAIT_SECONDS)
    assert order == [1]


def test_without_a_plan_or_a_setting_work_is_not_bounded() -> None:
    turnstile = Turnstile(own_cores=None, concurrent=8, clock=Clock())
    for key in range(5):
        turn = turnstile.enter(key, arrived_seconds=0.0, refused=False, closed=open_lane)
        assert turn is not None
        assert turn.start_seconds == 0.0
        turn.begin(100.0)
        turn.end()


def test_a_closed_lane_stops_waiting() -> None:
    turnstile = Turnstile(own_cores=1.0, concurrent=1, clock=Clock())
    first = turnstile.enter(0, arrived_seconds=0.0, refused=False, closed=open_lane)
    assert first is not None
    assert turnstile.enter(1, arrived_seconds=0.0, refused=False, closed=lambda: True) is None


def test_a_step_that_never_chose_lets_the_next_one_choose() -> None:
    turnstile = Turnstile(own_cores=1.0, concurrent=2, clock=Clock())
    for key in range(3):
        turn = turnstile.enter(key, arrived_seconds=0.0, refused=False, closed=open_lane)
        assert turn is not None
        turn.end()
