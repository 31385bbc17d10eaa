"""The paper's linear program: feasible, within its budgets, better with more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.control.errors import Infeasible
from skyscraper.control.plan import Plan, StreamForecast, plan
from skyscraper.control.units import buffer_seconds, core_seconds_per_segment, usd_per_segment


def forecast(seed: int, categories: int = 4) -> StreamForecast:
    rng = np.random.default_rng(seed)
    work = np.array([1.0, 4.0, 16.0, 0.0, 0.0, 0.0])
    usd = np.array([0.0, 0.0, 0.0, 0.01, 0.04, 0.16])
    quality = np.sort(rng.random((categories, 3)), axis=1)
    share = rng.dirichlet(np.ones(categories))
    return StreamForecast(np.concatenate([quality, quality], axis=1), share, work, usd)


def used(found: Plan, streams: list[StreamForecast], of: str) -> float:
    return sum(
        float((alpha * stream.share[:, None] * getattr(stream, of)).sum())
        for alpha, stream in zip(found.alpha, streams, strict=True)
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), work=st.floats(1, 20), usd=st.floats(0, 0.2))
def test_a_plan_keeps_both_budgets_and_covers_every_category(seed: int, count: int, work: float, usd: float) -> None:
    streams = [forecast(seed + index) for index in range(count)]
    found = plan(streams, work_core_seconds=work * count, usd=usd)
    assert used(found, streams, "work") <= work * count * (1 + 1e-6) + 1e-6
    assert used(found, streams, "usd") <= usd * (1 + 1e-6) + 1e-6
    for alpha in found.alpha:
        np.testing.assert_allclose(alpha.sum(axis=1), 1, atol=1e-6)
    more = plan(streams, work_core_seconds=work * count * 1.5, usd=usd * 1.5)
    assert more.expected_quality >= found.expected_quality - 1e-7
    assert found.work_price >= -1e-9
    assert found.usd_price >= -1e-9


def test_one_budget_for_all_is_no_worse_than_fair_shares() -> None:
    streams = [forecast(seed) for seed in range(8)]
    joint = plan(streams, work_core_seconds=40, usd=0.1).expected_quality
    apart = sum(plan([stream], work_core_seconds=5, usd=0.0125).expected_quality for stream in streams)
    assert joint >= apart - 1e-9


def test_too_little_work_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(Infeasible, match="take 2 core-seconds per segment, and the pool has 1.5"):
        plan([forecast(1), forecast(2)], work_core_seconds=1.5, usd=0)


@given(cores=st.floats(0.1, 1000), seconds=st.floats(0.1, 60), usd=st.floats(0, 1e4))
def test_units_of_a_day_are_those_of_its_segments(cores: float, seconds: float, usd: float) -> None:
    per_day = 86_400 / seconds
    assert core_seconds_per_segment(cores, seconds) * per_day == pytest.approx(cores * 86_400)
    assert usd_per_segment(usd, seconds) * per_day == pytest.approx(usd)
    assert buffer_seconds(1000.0, 10.0) == 100
    assert buffer_seconds(1000.0, 0.0) == float("inf")
