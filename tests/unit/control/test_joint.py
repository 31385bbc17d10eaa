"""The joint plan: shares of the pool, one currency for all streams, and days of any length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.control.errors import Infeasible

from .pasts import past, planned


@settings(max_examples=15)
@given(
    streams=st.lists(
        st.tuples(st.integers(2, 5), st.floats(0.1, 100), st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=5
    ),
    cores=st.floats(0.3, 8),
)
def test_shares_sum_to_the_pool_and_cover_every_floor(streams: list[tuple[int, float, float]], cores: float) -> None:
    pasts = [
        past(f"s{index}", configurations=count, unit=unit, weight=weight, seed=index)
        for index, (count, unit, weight) in enumerate(streams)
    ]
    found = planned(pasts, cores=cores)
    assert sum(found.cores_by_stream.values()) == pytest.approx(cores)
    assert found.cores_by_stream.keys() | found.refused.keys() == {one.stream_id for one in pasts}
    for one in pasts:
        if one.stream_id in found.cores_by_stream:
            assert found.cores_by_stream[one.stream_id] >= one.floor_cores * (1 - 1e-9)
            assert found.expected_quality[one.stream_id] <= one.truth.max(axis=1).mean() * (1 + 1e-6)


@settings(max_examples=10)
@given(few=st.floats(0.3, 2), more=st.floats(1.1, 3), streams=st.integers(1, 3))
def test_more_cores_never_make_the_expected_quality_worse(few: float, more: float, streams: int) -> None:
    pasts = [past(f"s{index}", seed=index, configurations=2 + index) for index in range(streams)]
    small, large = planned(pasts, cores=few), planned(pasts, cores=few * more)

    def total(found: dict[str, float]) -> float:
        return sum(found[one.stream_id] * one.value_scale for one in pasts)

    assert total(large.expected_quality) >= total(small.expected_quality) * (1 - 1e-6)


def test_a_pipelines_unit_of_quality_changes_nothing() -> None:
    one, other = (planned([past("a"), past("b", unit=unit, seed=1)]) for unit in (1.0, 1024.0))
    np.testing.assert_allclose(one.price.price, other.price.price, rtol=1e-6)
    assert one.cores_by_stream["b"] == pytest.approx(other.cores_by_stream["b"])
    assert other.expected_quality["b"] == pytest.approx(1024 * one.expected_quality["b"])


def test_a_weightier_stream_gets_more_of_the_pool() -> None:
    plain = past("a")
    heavy = replace(past("b"), value_scale=5 * plain.value_scale, weight=5)
    shares = planned([plain, heavy], cores=0.8).cores_by_stream
    assert shares["b"] > shares["a"]


def test_segments_of_half_the_length_twice_as_often_are_the_same_stream() -> None:
    """Half the quality and half the work each: shares and prices of the round stay."""
    whole = past("a")
    half = replace(
        whole,
        segment_seconds=whole.segment_seconds / 2,
        predicted=whole.predicted / 2,
        truth=whole.truth / 2,
        work_core_seconds=whole.work_core_seconds / 2,
    )
    one, two = planned([whole]), planned([half])
    np.testing.assert_allclose(one.price.price, two.price.price)
    assert two.expected_quality["a"] == pytest.approx(one.expected_quality["a"] / 2)


def test_a_day_of_eleven_minutes_is_planned_like_a_real_one() -> None:
    """All times and work divided by 128; a power of two, so that no rounding decides between equal plans."""
    real, factor = past("a"), 128
    short = replace(
        real,
        seconds=real.seconds / factor,
        segment_seconds=real.segment_seconds / factor,
        work_core_seconds=real.work_core_seconds / factor,
    )
    one = planned([real])
    two = planned(
        [short],
        segment_seconds=real.segment_seconds / factor,
        slot_seconds=1_200.0 / factor,
        day_seconds=86_400.0 / factor,
        limit_seconds=7_200.0 / factor,
    )
    assert two.price.price.shape == one.price.price.shape
    np.testing.assert_allclose(two.price.price, one.price.price * factor)
    assert two.expected_quality["a"] == pytest.approx(one.expected_quality["a"], rel=1e-6)


def test_dollars_buy_quality_and_streams_without_burst_go_with_those_with() -> None:
    work = np.geomspace(2.0, 32.0, 3)
    bursting = past("a", burst_usd=work * 1e-4)
    poor, rich = (planned([bursting, past("b")], cores=0.4, usd_per_day=usd) for usd in (0.0, 5.0))
    assert poor.price.usd_price > 0
    assert rich.expected_quality["a"] > poor.expected_quality["a"]


def test_what_does_not_fit_is_refused_and_the_rest_is_planned() -> None:
    found = planned([past("old"), past("new")], cores=0.15)
    assert list(found.cores_by_stream) == ["old"]
    assert "needs 0.11 cores" in found.refused["new"]
    with pytest.raises(Infeasible, match="needs 0.11 cores"):
        planned([past("a")], cores=0.05)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"slot_seconds": 1_000.0}, "does not divide"),
        ({"slot_seconds": 40.0}, "fewer than 3 segments"),
    ],
)
def test_slots_that_do_not_fit_are_refused_with_the_remedy(fault: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned([past()], **fault)


def test_nobody_and_a_stream_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="no stream"):
        planned([])
    with pytest.raises(ValueError, match="twice"):
        planned([past(), past()])
    with pytest.raises(ValueError, match="value_scale 0"):
        planned([past(value_scale=0.0)])
