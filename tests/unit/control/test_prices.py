"""Shadow prices: what a plan by time of day, content level and lag promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.control.content import learn_content
from skyscraper.control.demand import Demand, Sample, demand, options, price_grid
from skyscraper.control.lookahead import Table, foresee
from skyscraper.control.prices import PricePlan, best_prices, plan_streams, worth_at

Floats = NDArray[np.float64]

SEGMENT_SECONDS, SLOT_SECONDS = 20.0, 600.0
SLOT_SEGMENTS = 30
WORK = np.array([2.0, 8.0, 32.0])


def sample(load: Floats, seed: int = 0, *, burst: bool = False) -> Sample:
    """Quality falls short where it is full, and the dear configurations make up for it."""
    noise = 1 + 0.02 * np.random.default_rng(seed).normal(size=(len(load), 3))
    quality = load[:, None] * (1 - np.array([0.5, 0.2, 0.0]) * np.minimum(load, 1)[:, None]) * noise
    usd = WORK * 1e-4 if burst else None
    return Sample(quality, quality, np.arange(len(load)) // SLOT_SEGMENTS, options(WORK, usd))


def rush_hour(days: int) -> Floats:
    hour = np.arange(days * 86_400 / SEGMENT_SECONDS) * SEGMENT_SECONDS / 3600 % 24
    return np.asarray(0.1 + 0.9 * ((hour >= 12) & (hour < 15)))


def rushes_at_any_time(days: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    load = np.full(int(days * 86_400 / SEGMENT_SECONDS), 0.1)
    for start in rng.integers(0, len(load), 6 * days):
        load[start : start + 180] = 1.0
    return load


def planned(streams: list[Sample], *, cores: float = 0.3, buffer_seconds: float = 7_200, usd: float = 0) -> PricePlan:
    return plan_streams(
        streams,
        cores=cores,
        segment_seconds=SEGMENT_SECONDS,
        slot_seconds=SLOT_SECONDS,
        buffer_seconds=buffer_seconds,
        usd_per_day=usd,
    )


def test_a_core_second_never_gets_cheaper_as_the_lag_grows() -> None:
    plan = planned([sample(rush_hour(4))])
    assert (np.diff(plan.price, axis=2) >= 0).all()
    assert plan.price.max() > plan.price.min()


def test_work_is_dear_before_a_rush_that_comes_every_day_and_cheap_before_a_calm() -> None:
    plan = planned([sample(rush_hour(4))])
    before_rush, before_night = int(11.5 * 6), int(20 * 6)
    level = int(np.searchsorted(plan.edges, plan.last_need))
    assert plan.at(before_rush, level, 3_600) > plan.at(before_night, level, 3_600)


def test_a_rush_at_any_time_makes_work_dear_while_it_lasts() -> None:
    plan = planned([sample(rushes_at_any_time(6, seed=1))])
    calm, rush = 0, len(plan.edges)
    dearer = plan.price[:, rush].mean(axis=0) - plan.price[:, calm].mean(axis=0)
    assert (dearer[10:-1] > 0).all()


def test_more_cores_never_make_work_dearer() -> None:
    streams = [sample(rush_hour(3))]
    few, many = planned(streams, cores=0.25), planned(streams, cores=0.8)
    assert many.price.mean() < few.price.mean()


def test_the_price_of_a_dollar_keeps_the_budget_in_the_rehearsal_and_falls_with_it() -> None:
    streams = [sample(rush_hour(4), seed, burst=True) for seed in range(3)]
    unlimited = planned(streams, cores=0.5, usd=1e9)
    tight, loose = planned(streams, cores=0.5, usd=0.2), planned(streams, cores=0.5, usd=2.0)
    assert tight.usd_price > loose.usd_price > unlimited.usd_price > 0
    assert (np.diff(tight.usd_curve) >= 0).all()
    assert tight.usd_curve[-1] == pytest.approx(1)


def test_no_stream_is_no_plan() -> None:
    with pytest.raises(ValueError, match="no stream"):
        planned([])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(20, 300), mu=st.floats(0, 1e4))
def test_demand_at_a_price_is_what_choosing_each_segment_by_itself_gives(seed: int, rows: int, mu: float) -> None:
    rng = np.random.default_rng(seed)
    load = rng.random(rows)
    one = sample(load, seed, burst=bool(seed % 2))
    grid = price_grid([one])
    slots = int(one.slots.max()) + 1
    found = demand([one], slots, grid, mu)
    k = one.choice.configuration
    for index in (0, len(grid) // 3, len(grid) - 1):
        price = grid[index] * (1 + 1e-9)
        scores = one.predicted[:, k] - price * one.choice.work - mu * one.choice.usd
        value = scores.max(axis=1)
        for slot in range(slots):
            mine = one.slots == slot
            told = found.value[slot, index] - price * found.work[slot, index] - mu * found.usd[slot, index]
            assert told == pytest.approx(value[mine].mean(), rel=1e-6, abs=1e-9)


def test_a_few_segments_of_each_of_many_streams_tell_the_sum_of_all() -> None:
    """Every stream shows other segments; common rushes still show in the sum."""
    loads = [np.clip(rush_hour(4) * weight, 0, 1) for weight in np.linspace(0.5, 1.5, 40)]
    streams = [sample(load, seed) for seed, load in enumerate(loads)]
    grid = price_grid(streams[:1])
    slots = int(streams[0].slots.max()) + 1
    rng = np.random.default_rng(0)
    few = []
    for stream in streams:
        rows = rng.integers(0, len(stream.slots), 400)
        few.append(Sample(stream.predicted[rows], stream.truth[rows], stream.slots[rows], stream.choice))
    whole, estimate = demand(streams, slots, grid, 0.0), demand(few, slots, grid, 0.0)
    assert np.corrcoef(whole.need, estimate.need)[0, 1] > 0.95
    np.testing.assert_allclose(estimate.need.mean(), whole.need.mean(), rtol=0.03)


def test_the_chain_of_levels_is_a_chain() -> None:
    one = sample(rushes_at_any_time(5, seed=2))
    past = demand([one], int(one.slots.max()) + 1, price_grid([one]), 0.0)
    content = learn_content(past, slots_per_day=144, reach=6)
    np.testing.assert_allclose(content.chance.sum(axis=2), 1)
    calm, rush = 0, len(content.edges)
    # An hour's rush most likely lasts for another ten minutes; so does a calm.
    assert content.chance[:, rush, rush].mean() > 0.5
    assert content.chance[:, calm, calm].mean() > 0.5
    assert content.value[:, rush].mean() > content.value[:, calm].mean()


def test_content_that_never_changes_has_one_level() -> None:
    grid = np.array([0.0, 1.0])
    flat = np.ones((144, 2))
    content = learn_content(Demand(flat, flat, flat * 0), slots_per_day=144, reach=6)
    assert len(content.edges) == 0
    assert content.value.shape == (144, 1, len(grid))


def looked_ahead(plan: PricePlan, known: Demand, cores: float) -> Floats:
    drift = known.work * SLOT_SEGMENTS / cores - SLOT_SECONDS
    price = np.empty(len(plan.lags))
    table = Table(plan.grid, plan.lags, plan.price, plan.after, plan.edges)
    foresee(table, known.value, drift, 0, len(known.work), float(known.need[-1]), price)
    return price


def test_a_rush_that_waits_in_the_backlog_makes_work_dear_before_it_is_reached() -> None:
    plan = planned([sample(rushes_at_any_time(6, seed=3))])

    def known(load: Floats) -> Demand:
        one = sample(load)
        return demand([one], int(one.slots.max()) + 1, plan.grid, 0.0)

    calm = np.full(6 * SLOT_SEGMENTS, 0.1)
    rush_behind = calm.copy()
    rush_behind[2 * SLOT_SEGMENTS : 5 * SLOT_SEGMENTS] = 1.0
    easy, hard = looked_ahead(plan, known(calm), 0.3), looked_ahead(plan, known(rush_behind), 0.3)
    middle = slice(8, 50)
    assert (hard[middle] >= easy[middle]).all()
    assert hard[middle].mean() > easy[middle].mean()


def test_an_empty_backlog_gives_the_plans_own_price() -> None:
    plan = planned([sample(rush_hour(3))])
    price = np.empty(len(plan.lags))
    table = Table(plan.grid, plan.lags, plan.price, plan.after, plan.edges)
    foresee(table, np.empty((0, len(plan.grid))), np.empty((0, len(plan.grid))), 30, 30, 0.0, price)
    np.testing.assert_array_equal(price, plan.price[30, 0])


@given(lag=st.floats(-10, 30_000), top=st.floats(1, 21_600))
def test_the_worth_of_a_lag_is_interpolated(lag: float, top: float) -> None:
    lags = top * np.linspace(0, 1, 64) ** 2
    worth = -(lags**1.3)
    assert worth_at(lag, lags, worth) == pytest.approx(float(np.interp(lag, lags, worth)), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_step_back_finds_the_best_action_for_every_lag(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lags = 1_000 * np.linspace(0, 1, 64) ** 2
    # A concave value of work, as choosing by a price gives it.
    work = np.sort(rng.random(20))[::-1] * 400
    value = np.sqrt(work)
    after = -((lags / 100) ** 2)
    price, worth = np.empty(64), np.empty(64)
    grid = np.arange(20.0)
    best_prices(grid, value, work - 200, after, lags, price, worth)
    reached = lags[:, None] + (work - 200)[None, :]
    total = value + np.interp(reached, lags, after)
    total[reached > lags[-1]] = -np.inf
    fits = np.isfinite(total.max(axis=1))
    np.testing.assert_allclose(worth[fits], total.max(axis=1)[fits], atol=1e-9)
