"""Which stream gets which partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.bus.register import Registration
from skyscraper.bus.streams import allocate, lowest_free_partition, owners
from skyscraper.errors import ConfigError
from skyscraper.v1.stream_pb2 import Stream


def registered(*claims: tuple[str, int]) -> dict[str, Registration]:
    return {
        name: Registration(Stream(stream_id=name, partition=number), at) for at, (name, number) in enumerate(claims)
    }


def test_a_new_stream_gets_the_lowest_free_partition() -> None:
    assert allocate(registered(("a", 0), ("b", 2)), Stream(stream_id="c"), None, 4, set()) == 1


def test_a_known_stream_keeps_its_partition() -> None:
    assert allocate(registered(("a", 0), ("b", 2)), Stream(stream_id="b"), None, 4, set()) == 2


def test_of_two_that_claim_one_partition_the_earlier_record_wins() -> None:
    register = registered(("b", 0), ("a", 0))
    assert owners(register) == {0: "b"}
    assert allocate(register, Stream(stream_id="b"), None, 2, set()) == 0
    assert allocate(register, Stream(stream_id="a"), None, 2, set()) == 1


def test_no_partition_left_says_how_to_add_some() -> None:
    with pytest.raises(ConfigError, match=r"all 1 are taken. Add some, e.g. kafka-topics.sh --alter"):
        allocate(registered(("a", 0)), Stream(stream_id="b"), None, 1, set())


def test_a_partition_of_another_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match="belongs to stream a"):
        allocate(registered(("a", 0)), Stream(stream_id="b"), 0, 2, set())


def test_a_partition_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 2 partitions"):
        allocate({}, Stream(stream_id="b"), 7, 2, set())


@given(st.sets(st.integers(0, 20)), st.integers(1, 20))
def test_the_lowest_free_partition_is_free_and_none_lower_is(taken: set[int], partitions: int) -> None:
    found = lowest_free_partition(taken, partitions)
    if found is None:
        assert taken >= set(range(partitions))
    else:
        assert found not in taken
        assert taken >= set(range(found))
