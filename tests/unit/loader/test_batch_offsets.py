"""A batch moves each partition from where the table stands to past what was read, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper_loader.batch import Batch

EVENTS = st.lists(st.tuples(st.sampled_from(["row", "reject", "end"]), st.integers(0, 3), st.integers(1, 5)))


@given(EVENTS, st.dictionaries(st.integers(0, 3), st.integers(0, 50)))
def test_offsets_follow_what_was_read(events: list[tuple[str, int, int]], start: dict[int, int]) -> None:
    batch = Batch(after={partition: start.get(partition) for partition in range(4)})
    position = dict(start)
    rows = 0
    for kind, partition, step in events:
        # Steps above 1 are transaction markers and aborted rows in between.
        offset = position.get(partition, 0) + step - 1
        if kind == "end":
            batch.reach(partition, offset, 0.0)
            position[partition] = max(offset, position.get(partition, 0))
        else:
            batch.add(partition, offset, {"n": rows} if kind == "row" else None, 10, 0.0)
            position[partition] = offset + 1
            rows += kind == "row"
    assert len(batch.rows) == rows
    for partition, offset in batch.offsets.items():
        assert offset == position[partition]
        assert batch.changed()[partition] == start.get(partition)
    following = batch.next_batch()
    assert (following.rows, following.offsets) == ([], {})
    assert {p: o for p, o in following.after.items() if o is not None} == {p: o for p, o in position.items() if o} | {
        p: o for p, o in start.items() if p not in batch.offsets
    }


def test_rows_wait_for_the_interval_and_ends_for_the_idle_time() -> None:
    batch = Batch(after={0: 5})
    batch.reach(0, 6, now=100.0)
    assert not batch.is_due(130.0, interval_seconds=1, idle_seconds=60)
    assert batch.is_due(160.0, interval_seconds=1, idle_seconds=60)
    batch.add(0, 6, {}, 10, now=161.0)
    assert not batch.is_due(161.5, interval_seconds=1, idle_seconds=600)
    assert batch.is_due(162.0, interval_seconds=1, idle_seconds=600)


def test_end_where_the_table_stands_is_no_news() -> None:
    batch = Batch(after={0: 5})
    batch.reach(0, 5, now=0.0)
    assert not batch.offsets


def test_rejected_messages_fill_a_batch_too() -> None:
    batch = Batch()
    for offset in range(3):
        batch.add(0, offset, None, 10, now=0.0)
    assert batch.is_full(max_messages=3, max_bytes=10**6)
    assert batch.is_full(max_messages=10**6, max_bytes=30)
    assert not batch.is_full(max_messages=4, max_bytes=31)


def test_partitions_given_away_leave_no_row_behind() -> None:
    batch = Batch(after={0: 5, 1: None})
    batch.add(0, 5, {"n": 1}, 10, now=0.0)
    batch.add(1, 0, {"n": 2}, 10, now=0.0)
    kept = batch.without([1])
    assert (kept.after, kept.offsets, kept.rows) == ({0: 5}, {}, [])
