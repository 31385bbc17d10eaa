"""Where a decoder goes on in a partition it takes over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.v1 import state_pb2
from skyscraper_decoder.ownership import Start, choose_start, usable_states

offsets = st.integers(0, 2**40)


def test_a_partition_never_read_begins_at_its_beginning_and_nothing_is_lost() -> None:
    assert choose_start(None, 17) == Start(17, lost=0)


def test_what_retention_took_is_counted() -> None:
    assert choose_start(10, 17) == Start(17, lost=7)


@given(offsets, offsets)
def test_the_start_is_readable_and_committed_and_lost_add_up_to_it(committed: int, low: int) -> None:
    start = choose_start(committed, low)
    assert start.offset >= low
    assert start.offset - start.lost == committed
    assert start.lost >= 0


def table(*states: state_pb2.OperatorState) -> dict[bytes, bytes]:
    return {state.stream_id.encode(): state.SerializeToString() for state in states}


def test_the_state_of_the_committed_segment_is_used() -> None:
    state = state_pb2.OperatorState(stream_id="gate", next_offset=10)
    assert usable_states(table(state), committed=10) == [state]


def test_an_older_state_is_used_after_dead_letters() -> None:
    state = state_pb2.OperatorState(stream_id="gate", next_offset=8)
    assert usable_states(table(state), committed=10) == [state]


def test_a_state_from_the_future_is_dropped_when_somebody_moved_the_offsets_back() -> None:
    state = state_pb2.OperatorState(stream_id="gate", next_offset=11)
    assert usable_states(table(state), committed=10) == []


def test_a_state_that_cannot_be_read_is_dropped() -> None:
    assert usable_states({b"gate": b"\xff\xff\xff"}, committed=10) == []
