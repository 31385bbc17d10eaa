"""A batch knows where the table stood and where it will stand."""

from __future__ import annotations

from skyscraper_loader.batch import Batch


def test_an_empty_batch_is_never_due() -> None:
    assert not Batch().is_due(1e9, interval_seconds=1.0, idle_seconds=1.0)
    assert not Batch().is_full(max_messages=1, max_bytes=1)


def test_it_is_due_by_age() -> None:
    batch = Batch()
    batch.add(0, 5, {"a": 1}, 10, now=100.0)
    assert not batch.is_due(100.5, interval_seconds=1.0, idle_seconds=60.0)
    assert batch.is_due(101.0, interval_seconds=1.0, idle_seconds=60.0)


def test_a_rejected_message_moves_the_offset_only() -> None:
    batch = Batch(after={0: 5})
    batch.add(0, 5, None, 10, now=1.0)
    assert (batch.rows, batch.offsets) == ([], {0: 6})


def test_only_partitions_that_move_are_compared() -> None:
    batch = Batch(after={0: 5, 1: None, 2: 7})
    batch.add(1, 0, {"a": 1}, 10, now=1.0)
    assert batch.changed() == {1: None}


def test_the_next_batch_begins_where_this_one_ends() -> None:
    batch = Batch(after={0: 5, 1: None})
    batch.add(0, 9, {"a": 1}, 10, now=1.0)
    following = batch.next_batch()
    assert following.after == {0: 10, 1: None}
    assert following.opened_seconds is None
