"""A lane keeps order, holds little, and ends when told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest
from skyscraper.rpc.errors import InferenceUnreachable
from skyscraper.v1 import report_pb2, state_pb2
from skyscraper_decoder.lane import Lane
from skyscraper_decoder.outcome import Outcome
from skyscraper_decoder.step import Gap, Segment, SegmentStep
from skyscraper_decoder.turnstile import Turn, Turnstile

WAIT_SECONDS = 10.0


class Steps(SegmentStep):
    """A step whose work is a function given by the test."""

    def __init__(self, work: Callable[[Segment], None] = lambda _: None) -> None:
        self.work = work
        self.seen: list[int] = []
        self.sequences: list[int] = []

    def run(self, segment: Segment, states: Mapping[str, state_pb2.OperatorState], turn: Turn) -> Outcome:
        self.work(segment)
        self.seen.append(segment.offset)
        self.sequences.append(states["gate"].sequence if "gate" in states else -1)
        state = state_pb2.OperatorState(stream_id="gate", sequence=segment.offset)
        return Outcome(segment.partition, segment.offset + 1, report_pb2.SegmentReport(), state=state)

    def account_loss(self, gap: Gap, states: Mapping[str, state_pb2.OperatorState]) -> Outcome:
        return Outcome(gap.partition, gap.next_offset, report_pb2.SegmentReport(missing_before=gap.lost))


def segment(offset: int, size: int = 100) -> Segment:
    return Segment(0, offset, b"gate", bytes(size), [], datetime(2026, 1, 1, tzinfo=UTC), 0.0)


def lane(steps: SegmentStep, *, queue_bytes: int = 10_000, uncommitted: int = 4) -> Lane:
    turnstile = Turnstile(own_cores=None, concurrent=4)
    return Lane(
        0,
        0,
        steps,
        [],
        turnstile,
        refused=lambda _: False,
        queue_bytes=queue_bytes,
        uncommitted_segments=uncommitted,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_segments_are_processed_in_order_each_with_the_state_of_the_last() -> None:
    steps = Steps()
    one = lane(steps, uncommitted=100)
    for offset in range(20):
        one.offer(segment(offset))
    wait_for(lambda: len(one.finished()) == 20)
    assert steps.seen == list(range(20))
    assert steps.sequences == list(range(-1, 19))
    assert one.next_offset == 20
    one.close()


def test_it_stops_at_the_bound_of_uncommitted_segments_and_goes_on_after_a_commit() -> None:
    steps = Steps()
    one = lane(steps, uncommitted=3)
    for offset in range(6):
        one.offer(segment(offset))
    wait_for(lambda: len(one.finished()) == 3)
    time.sleep(0.05)
    assert steps.seen == [0, 1, 2]
    one.committed(2)
    wait_for(lambda: len(one.finished()) == 3)
    assert [outcome.next_offset for outcome in one.finished()] == [3, 4, 5]
    one.close()


def test_it_is_full_by_bytes_and_hungry_only_when_nearly_empty() -> None:
    gate = threading.Event()
    one = lane(Steps(lambda _: gate.wait(WAIT_SECONDS) and None or None), queue_bytes=8 * 1124, uncommitted=100)
    for offset in range(9):
        one.offer(segment(offset))
    wait_for(lambda: one.full)
    assert not one.hungry
    gate.set()
    wait_for(lambda: one.hungry)
    assert not one.full
    one.close()


def test_a_retriable_error_is_waited_out() -> None:
    failures = iter([InferenceUnreachable("away"), InferenceUnreachable("away")])

    def work(_: Segment) -> None:
        for error in failures:
            raise error

    one = lane(Steps(work))
    one.offer(segment(0))
    wait_for(lambda: len(one.finished()) == 1)
    one.close()


def test_what_breaks_a_lane_reaches_its_owner() -> None:
    def work(_: Segment) -> None:
        raise MemoryError("no more")

    one = lane(Steps(work))
    one.offer(segment(0))

    def broken() -> bool:
        try:
            one.finished()
        except MemoryError:
            return True
        return False

    wait_for(broken)
    one.join(WAIT_SECONDS)


def test_closing_drops_what_is_under_way() -> None:
    started, gate = threading.Event(), threading.Event()

    def work(_: Segment) -> None:
        started.set()
        gate.wait(WAIT_SECONDS)

    one = lane(Steps(work))
    one.offer(segment(0))
    assert started.wait(WAIT_SECONDS)
    one.close()
    gate.set()
    one.join(WAIT_SECONDS)
    assert one.finished() == []


def test_closing_ends_a_wait_for_a_retry() -> None:
    def work(_: Segment) -> None:
        raise InferenceUnreachable("away")

    one = lane(Steps(work))
    one.offer(segment(0))
    time.sleep(0.1)
    one.close()
    one.join(WAIT_SECONDS)
    assert one.finished() == []


def test_a_gap_takes_its_turn_among_the_segments() -> None:
    one = lane(Steps())
    one.offer(segment(0))
    one.offer_gap(7, lost=6)
    one.offer(segment(7))
    wait_for(lambda: len(one.finished()) == 3)
    assert [(outcome.next_offset, outcome.report.missing_before) for outcome in one.finished()] == [
        (1, 0),
        (7, 6),
        (8, 0),
    ]
    one.close()


@pytest.mark.parametrize("count", [0, 1])
def test_committing_takes_from_the_front(count: int) -> None:
    one = lane(Steps())
    one.offer(segment(0))
    wait_for(lambda: len(one.finished()) == 1)
    one.committed(count)
    assert len(one.finished()) == 1 - count
    one.close()
