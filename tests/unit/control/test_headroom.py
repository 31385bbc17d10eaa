"""Headroom: what is left before retention deletes something unprocessed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds

positive = st.floats(0, 1e9)


def test_without_limits_there_is_no_end() -> None:
    assert headroom_seconds(Backlog(1e6, 10**12, 1e6), Retention(None, None)) == float("inf")


def test_time_and_bytes_the_tighter_one_counts() -> None:
    retention = Retention(seconds=3600, bytes_per_partition=1_000_000)
    assert headroom_seconds(Backlog(600, 0, 100), retention) == 3000
    assert headroom_seconds(Backlog(600, 900_000, 1000), retention) == 100


@given(positive, st.integers(0, 10**12), positive, positive, st.integers(1, 10**12))
def test_it_is_never_negative(age: float, size: int, rate: float, seconds: float, limit: int) -> None:
    assert headroom_seconds(Backlog(age, size, rate), Retention(seconds, limit)) >= 0


@given(positive, st.integers(0, 10**9), st.floats(1, 1e6), st.floats(0, 1e6), st.integers(0, 10**9))
def test_more_backlog_never_gives_more_headroom(age: float, size: int, rate: float, older: float, larger: int) -> None:
    retention = Retention(1e6, 10**10)
    before = headroom_seconds(Backlog(age, size, rate), retention)
    assert headroom_seconds(Backlog(age + older, size + larger, rate), retention) <= before
