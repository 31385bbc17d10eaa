"""Pool or burst machines: the best by prices that guard and budget allow, and the paper's way down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.control.live import BurstOffer, Placement, Rule, Situation, by_hand, by_plan, by_prices
from skyscraper.control.priced import usd_price_now

Floats = NDArray[np.float64]
UNLIMITED = float("inf")


def situation(**changes: object) -> Situation:
    values: dict[str, object] = {
        "quality": np.array([1.0, 5.0, 10.0]),
        "work": np.array([0.1, 1.0, 4.0]),
        "work_price": 1.0,
        "value_scale": 1.0,
        "slack_core_seconds": 100.0,
        "burst": BurstOffer(np.array([0.01, 0.02, 0.03]), np.array([0.001, 0.01, 0.04]), 50.0, 1.0),
    }
    return Situation(**(values | changes))  # type: ignore[arg-type]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    count = draw(st.integers(2, 6))

    def numbers(low: float, high: float) -> Floats:
        return np.array(draw(st.lists(st.floats(low, high), min_size=count, max_size=count)))

    kept = numbers(0, 1)
    kept[np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))] = np.inf
    burst = draw(st.booleans())
    return Situation(
        numbers(0, 10),
        np.sort(numbers(0.001, 10)),
        draw(st.floats(0, 5)),
        1.0,
        draw(st.floats(-1, 12)),
        BurstOffer(kept, numbers(0, 1), draw(st.floats(0, 50)), draw(st.floats(0, 1))) if burst else None,
    )


@settings(max_examples=300, deadline=None)
@given(one=situations())
def test_no_choice_breaks_guard_or_budget_and_none_that_is_allowed_is_better(one: Situation) -> None:
    found = by_prices(one)
    scores = {}
    for k in range(len(one.work)):
        scores[k, Placement.POOL] = one.quality[k] - one.work_price * one.work[k], one.work[k], 0.0
        if one.burst is not None and np.isfinite(one.burst.work[k]):
            value = one.quality[k] - one.work_price * one.burst.work[k] - one.burst.usd_price * one.burst.usd[k]
            scores[k, Placement.BURST] = value, one.burst.work[k], one.burst.usd[k]
    score, work, usd = scores[found.configuration, found.placement]
    left = 0.0 if one.burst is None else one.burst.left_usd
    if found.rule is not Rule.FLOOR:
        assert work <= one.slack_core_seconds
    assert usd <= left
    allowed = [each for each in scores.values() if each[1] <= one.slack_core_seconds and each[2] <= left]
    assert all(score >= each[0] - 1e-9 for each in allowed)
    if found.placement is Placement.BURST:
        assert found.advantage >= -1e-9


def test_dear_dollars_keep_work_in_the_pool_and_dear_work_sends_it_away() -> None:
    cheap = by_prices(situation())
    assert (cheap.configuration, cheap.placement) == (2, Placement.BURST)
    offer = situation().burst
    assert offer is not None
    dear = BurstOffer(offer.work, offer.usd, 500.0, offer.left_usd)
    assert by_prices(situation(burst=dear)).placement is Placement.POOL
    assert by_prices(situation(burst=dear, work_price=10.0)).placement is Placement.BURST


def test_what_the_budget_has_no_room_for_stays_in_the_pool() -> None:
    offer = situation().burst
    assert offer is not None
    poor = BurstOffer(offer.work, offer.usd, offer.usd_price, left_usd=0.02)
    found = by_prices(situation(burst=poor))
    assert (found.configuration, found.placement) == (2, Placement.POOL)
    assert by_prices(situation(burst=poor, slack_core_seconds=2.0)).configuration == 1


def test_the_paper_places_work_elsewhere_only_when_the_buffer_would_overflow() -> None:
    alpha, used = np.array([0.0, 0.0, 1.0]), np.zeros(3)
    assert by_plan(situation(), alpha, used).placement is Placement.POOL
    tight = by_plan(situation(slack_core_seconds=2.0), alpha, used)
    assert (tight.configuration, tight.placement, tight.rule) == (2, Placement.BURST, Rule.PLANNED)
    alone = by_plan(situation(slack_core_seconds=2.0, burst=None), alpha, used)
    assert (alone.configuration, alone.rule) == (1, Rule.GUARDED)


def test_a_fixed_configuration_buys_nothing() -> None:
    found = by_hand(situation(slack_core_seconds=2.0), 2)
    assert (found.configuration, found.placement, found.rule) == (1, Placement.POOL, Rule.GUARDED)


def test_without_slack_the_cheapest_in_the_pool_is_the_floor() -> None:
    found = by_prices(situation(slack_core_seconds=-1.0, burst=None))
    assert (found.configuration, found.rule) == (0, Rule.FLOOR)


def test_a_dollar_gets_dearer_where_too_many_are_spent_by_now() -> None:
    assert usd_price_now(10.0, spent_share=0.5, due_share=0.5) == 10.0
    assert usd_price_now(10.0, spent_share=0.6, due_share=0.5) > 14.0
    assert usd_price_now(10.0, spent_share=0.4, due_share=0.5) < 7.0
