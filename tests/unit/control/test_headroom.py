"""Headroom: what is left before retention deletes something unprocessed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.headroom import (
    Backlog,
    Density,
    Retention,
    headroom,
    headroom_seconds,
    limit_seconds,
)

positive = st.floats(0, 1e9)
limits = st.builds(
    Retention,
    st.none() | st.floats(1, 1e7),
    st.none() | st.integers(1, 10**12),
    st.integers(1 << 20, 1 << 30),
    st.floats(0, 600),
)
backlogs = st.builds(Backlog, positive, st.integers(0, 10**12), st.floats(0, 1e8))


def test_without_limits_there_is_no_end() -> None:
    assert headroom_seconds(Backlog(1e6, 10**12, 1e6), Retention(None, None)) == float("inf")


def test_time_and_bytes_the_tighter_one_counts() -> None:
    retention = Retention(seconds=3600, bytes_per_partition=1_000_000)
    assert headroom_seconds(Backlog(600, 0, 100), retention) == 3000
    assert headroom(Backlog(600, 0, 100), retention).limited_by == "time"
    assert headroom_seconds(Backlog(600, 900_000, 1000), retention) == 100
    assert headroom(Backlog(600, 900_000, 1000), retention).limited_by == "bytes"


@given(backlogs, limits)
def test_it_is_never_negative_and_the_guarantee_comes_first(backlog: Backlog, retention: Retention) -> None:
    found = headroom(backlog, retention)
    assert 0 <= found.guaranteed_seconds <= found.latest_seconds


@given(backlogs, limits, st.floats(0, 1e6), st.integers(0, 10**9))
def test_more_backlog_never_gives_more_headroom(
    backlog: Backlog, retention: Retention, older: float, larger: int
) -> None:
    more = replace(
        backlog, oldest_age_seconds=backlog.oldest_age_seconds + older, size_bytes=backlog.size_bytes + larger
    )
    assert headroom_seconds(more, retention) <= headroom_seconds(backlog, retention)


def kafka(sizes: list[int], gap: float, retention: Retention, watched: int) -> float | None:
    """When a log of records of these sizes, one every `gap` seconds, loses the record `watched`: Kafka's own rules."""
    files: list[list[int]] = [[]]
    first = 0
    for number, _ in enumerate(sizes):
        if files[-1] and sum(sizes[one] for one in files[-1]) + sizes[number] > retention.log_segment_bytes:
            files.append([])
        files[-1].append(number)
        now = number * gap
        held = sum(sizes[one] for part in files for one in part)
        while files[:-1]:
            part = sum(sizes[one] for one in files[0])
            too_old = retention.seconds is not None and now - files[0][-1] * gap > retention.seconds
            size = retention.bytes_per_partition
            too_large = size is not None and held - part >= size
            if not (too_old or too_large):
                break
            first, held = files.pop(0)[-1] + 1, held - part
        if first > watched:
            return now
    return None


@given(
    st.lists(st.integers(100, 1_000), min_size=30, max_size=120),
    st.integers(0, 20),
    st.integers(0, 20),
    st.none() | st.floats(3, 30),
    st.none() | st.integers(3_000, 20_000),
    st.integers(1_000, 8_000),
)
def test_kafka_deletes_between_the_guarantee_and_the_latest(
    sizes: list[int], watched: int, asked: int, seconds: float | None, size: int | None, log_segment_bytes: int
) -> None:
    """A check after every record; the question comes `asked` records after the watched one."""
    retention = Retention(seconds, size, log_segment_bytes, 1.0)
    gone = kafka(sizes, 1.0, retention, watched)
    now = watched + asked
    waiting = sum(sizes[watched : now + 1])
    # What will come at most bounds the guarantee, at least bounds the latest.
    at_most = headroom(Backlog(asked, waiting, max(sizes)), retention)
    at_least = headroom(Backlog(asked, waiting - sizes[watched], min(sizes)), retention)
    if gone is None:
        assert now + at_least.latest_seconds >= len(sizes) - 1
    elif gone > now:
        assert now + at_most.guaranteed_seconds <= gone <= now + at_least.latest_seconds + 1


@given(limits, st.floats(1, 1e8), st.floats(0.01, 1))
def test_a_lag_of_the_limit_still_has_headroom(retention: Retention, densest: float, safety: float) -> None:
    limit = limit_seconds(retention, densest, safety)
    if limit == float("inf"):
        assert retention.seconds is retention.bytes_per_partition is None
        return
    backlog = Backlog(limit, int(limit * densest), densest)
    whole = limit_seconds(retention, densest, 1.0)
    assert headroom_seconds(backlog, retention) == pytest.approx(whole - limit, abs=1e-6 * whole + 1 / densest)


@pytest.mark.parametrize("safety", [0.0, -0.1, 1.01, float("nan")])
def test_a_safety_that_is_no_part_is_refused(safety: float) -> None:
    with pytest.raises(ValueError, match="safety is"):
        limit_seconds(Retention(60, None), 1.0, safety)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 90)), max_size=300))
def test_the_densest_minute_is_never_thinner_than_now(segments: list[tuple[int, float]]) -> None:
    density = Density()
    for size, seconds in segments:
        density.add(size, seconds)
        assert density.densest >= density.now >= 0


def test_a_dense_minute_is_remembered_for_a_day() -> None:
    density = Density()
    for _ in range(30):
        density.add(4_000, 2.0)
    assert (density.now, density.densest) == (2_000, 2_000)
    minutes = 0
    while density.densest == 2_000:
        minutes += 1
        for _ in range(30):
            density.add(1_000, 2.0)
        assert density.now == 500
    assert minutes == 24 * 60 + 1
