"""Hedges: after the 95th percentile, for a small share of the requests, and only where there is time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.hedging import Hedges, Latencies, Percentiles, hedge_after_seconds


def test_nothing_is_hedged_on_a_guess() -> None:
    latencies = Latencies()
    for _ in range(10):
        latencies.add(0.1)
    assert hedge_after_seconds(latencies.percentiles, 10.0) is None


def test_a_request_is_hedged_after_the_95th_percentile_if_the_second_try_can_still_end() -> None:
    known = Percentiles(median_seconds=0.2, late_seconds=1.0)
    assert hedge_after_seconds(known, 1.3) == 1.0
    assert hedge_after_seconds(known, 1.1) is None


def test_the_percentile_follows_the_last_requests() -> None:
    latencies = Latencies()
    for number in range(200):
        latencies.add(1.0 if number % 10 == 0 else 0.1)
    assert latencies.percentiles == Percentiles(0.1, 1.0)
    for _ in range(200):
        latencies.add(0.3)
    assert latencies.percentiles == Percentiles(0.3, 0.3)


@given(share=st.floats(0, 0.5), wishes=st.lists(st.booleans(), max_size=300))
def test_never_more_hedges_than_the_share_and_the_burst(share: float, wishes: list[bool]) -> None:
    hedges, taken = Hedges(share, burst=3), 0
    for sent, wish in enumerate(wishes, start=1):
        hedges.sent()
        taken += wish and hedges.take()
        assert taken <= share * sent + 3


def test_a_share_of_nothing_hedges_nothing() -> None:
    hedges = Hedges(0.0)
    hedges.sent()
    assert not hedges.take()
