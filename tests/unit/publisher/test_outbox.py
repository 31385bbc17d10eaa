"""The way to the broker: whatever the broker does, segments arrive in order, each at least once, none silently lost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from skyscraper.bus.spill import Spill
from skyscraper_publisher.outbox import Message, Outbox, Outcome

SIZE = 100


def message(number: int) -> Message:
    return Message([("ce_id", f"s/1/{number}".encode())], number.to_bytes(4, "big") * (SIZE // 4))


class Broker:
    """Keeps what it is sent until it is told to answer; a plain object in the place of the Kafka client."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Message, Callable[[Outcome, str], None]]] = []
        self.stored: list[str] = []
        self.full = False
        self.refuse_at_once = False

    def send(self, message: Message, partition: int, answer: Callable[[Outcome, str], None]) -> bool:
        if self.refuse_at_once:
            answer(Outcome.REFUSED, "too large")
            return True
        if not self.full:
            self.waiting.append((message, answer))
        return not self.full

    def answer(self, outcome: Outcome) -> None:
        """As librdkafka: in order, and when one fails, so does all that was sent after it."""
        if outcome is Outcome.RETRY:
            failed, self.waiting = self.waiting, []
            for _, answer in failed:
                answer(Outcome.RETRY, "leader lost")
        elif self.waiting:
            sent, answer = self.waiting.pop(0)
            if outcome is Outcome.STORED:
                self.stored.append(sent.id)
            answer(outcome, "")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def outbox(folder: Path, broker: Broker, clock: Clock, *, spill_bytes: int = 1 << 20) -> Outbox:
    made = Outbox(
        "s",
        broker.send,
        Spill(folder, max_bytes=spill_bytes),
        max_memory_bytes=3 * SIZE,
        spill_after_seconds=3.0,
        clock=clock,
    )
    made.partition = 0
    return made


def dropped(reason: str) -> float:
    labels = {"stream": "s", "reason": reason}
    return REGISTRY.get_sample_value("skyscraper_publisher_segments_dropped_total", labels) or 0.0


def finish(box: Outbox, broker: Broker, clock: Clock) -> None:
    broker.full = False
    for _ in range(500):
        clock.seconds += 2
        box.pump()
        broker.answer(Outcome.STORED)
        if box.is_empty:
            return
    raise AssertionError("it never came to an end")


def without_repeats(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


EVENTS = ["offer", "offer", "offer", "stored", "stored", "retry", "pump", "away", "full", "room", "kill", "stop"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_any_history_ends_with_every_segment_stored_in_order(events: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        broker, clock = Broker(), Clock()
        box = outbox(Path(name), broker, clock)
        offered = 0
        for event in events:
            if event == "offer":
                box.offer(message(offered))
                offered += 1
            elif event in {"stored", "retry"}:
                broker.answer(Outcome(event))
            elif event == "away":
                clock.seconds += 10
            elif event in {"full", "room"}:
                broker.full = event == "full"
            elif event == "stop" or (event == "kill" and offered == 0):
                box.close()
                broker.waiting.clear()
                box = outbox(Path(name), broker, clock)
            elif event == "kill":
                # Only what is on disk survives: let the broker be away long enough first.
                clock.seconds += 10
                box.pump()
                box._spill.close()
                broker.waiting.clear()
                box = outbox(Path(name), broker, clock)
            else:
                box.pump()
        finish(box, broker, clock)
        assert without_repeats(broker.stored) == [message(number).id for number in range(offered)]
        box.close()


def test_no_repeat_is_sent_while_the_process_lives(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(tmp_path, broker, clock)
    for number in range(20):
        clock.seconds += 2
        box.offer(message(number))
        box.pump()
    finish(box, broker, clock)
    assert broker.stored == [message(number).id for number in range(20)]


def test_a_segment_sent_again_never_overtakes_nor_is_overtaken(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(tmp_path, broker, clock)
    for number in range(3):
        box.offer(message(number))
    _, answer = broker.waiting.pop(0)
    answer(Outcome.RETRY, "leader lost")
    clock.seconds += 2
    box.pump()
    assert len(broker.waiting) == 2
    broker.answer(Outcome.RETRY)
    clock.seconds += 2
    finish(box, broker, clock)
    assert broker.stored == [message(number).id for number in range(3)]


def test_spill_full_drops_the_newest_and_counts_it(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    broker.full = True
    box = outbox(tmp_path, broker, clock, spill_bytes=800)
    before = dropped("spill_full")
    for number in range(10):
        box.offer(message(number))
    lost = dropped("spill_full") - before
    assert lost > 0
    finish(box, broker, clock)
    assert broker.stored == [message(number).id for number in range(10 - int(lost))]


def test_a_refusal_inside_the_send_is_counted_and_the_stream_goes_on(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(tmp_path, broker, clock)
    before = dropped("refused")
    broker.refuse_at_once = True
    box.offer(message(0))
    broker.refuse_at_once = False
    box.offer(message(1))
    finish(box, broker, clock)
    assert dropped("refused") - before == 1
    assert broker.stored == [message(1).id]


def test_a_source_that_can_wait_is_made_to_wait_instead_of_spilling(tmp_path: Path) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(tmp_path, broker, clock)
    taken = [box.offer_when_room(message(number), 0.0) for number in range(5)]
    assert taken == [True, True, True, False, False]
    broker.answer(Outcome.STORED)
    assert box.offer_when_room(message(3), 0.0)
    assert not list(tmp_path.glob("*.spill"))


def test_a_message_survives_the_disk_with_its_headers() -> None:
    whole = Message([("ce_id", b"s/1/2"), ("ce_source", "straße".encode())], bytes(range(256)))
    assert Message.decode(whole.encode()) == whole


@pytest.mark.parametrize("late", [True, False])
def test_a_segment_after_the_end_is_dropped_and_counted(tmp_path: Path, late: bool) -> None:
    broker, clock = Broker(), Clock()
    box = outbox(tmp_path, broker, clock)
    before = dropped("stopped")
    if late:
        box.close()
    box.offer(message(0))
    assert dropped("stopped") - before == (1 if late else 0)
