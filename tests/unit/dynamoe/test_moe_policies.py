"""Policies are functions of plan and score: hysteresis, constant sums, collapse, cache and precision."""

from __future__ import annotations

import pytest
from dynamoe import Plan, Precision, Score
from dynamoe.policies import (
    CACHE_STEPS,
    assignment_cache,
    auto,
    cache_switch,
    capacity,
    collapsed,
    following_capacity,
    local_capacity,
    misplaced,
    precision_by_rows,
    replicas,
    shared_capacity,
)
from hypothesis import given
from hypothesis import strategies as st

_needs = st.lists(st.floats(0, 8), min_size=2, max_size=16)


def _score(needed: list[float], *, rows: int = 100, unchanged: float = 0.0, since: int = 10_000) -> Score:
    counts = tuple(round(one * rows / len(needed)) for one in needed)
    return Score(0, rows, 1, counts, tuple(needed), tuple(needed), unchanged, 0, since, float(rows))


@pytest.mark.parametrize(
    ("alpha", "needed", "expected"),
    [(4.0, 2.0, 2.5), (2.0, 1.3, 2.0), (2.0, 1.85, 2.3125), (3.6, 3.5, 4.0), (4.0, 5.0, 4.0), (2.0, 1.2, 2.0)],
)
def test_capacity_follows_with_hysteresis(alpha: float, needed: float, expected: float) -> None:
    assert following_capacity(alpha, needed) == pytest.approx(expected)


@given(st.floats(0.1, 4), st.floats(0.05, 6))
def test_a_capacity_just_set_stays(alpha: float, needed: float) -> None:
    settled = following_capacity(following_capacity(alpha, needed), needed)
    assert following_capacity(settled, needed) == settled


def test_needs_that_wander_inside_the_band_never_recompile() -> None:
    decide, plan = capacity(), Plan(alpha=2.0)
    assert all(decide(plan, _score([need, 0.5])) is None for need in (1.21, 1.5, 1.83, 1.4, 1.79))


@given(_needs, st.floats(0.5, 32))
def test_shared_capacity_keeps_its_sum_and_starves_nobody_before_a_hotter_one(
    needed: list[float], total: float
) -> None:
    given_ = shared_capacity(needed, total=total)
    assert sum(given_) == pytest.approx(total)
    short = [need - have for need, have in zip(needed, given_, strict=True) if need > have + 1e-9]
    if short:
        level = max(given_)
        assert all(have == pytest.approx(min(need, level)) for need, have in zip(needed, given_, strict=True)), (
            "water filling"
        )


@given(_needs)
def test_shared_capacity_drops_no_more_than_equal_capacities(needed: list[float]) -> None:
    total = float(len(needed))
    equal = sum(max(0.0, need - 1) for need in needed)
    moved = sum(max(0.0, need - have) for need, have in zip(needed, shared_capacity(needed, total=total), strict=True))
    assert moved <= equal + 1e-9


def test_local_capacity_moves_to_the_hot_expert_and_then_rests() -> None:
    decide, plan = local_capacity(total=4.0), Plan(alpha=(1.0,) * 4)
    score = _score([1.9, 0.7, 0.7, 0.7])
    change = decide(plan, score)
    assert change is not None
    assert isinstance(change.plan.alpha, tuple)
    assert change.plan.alpha[0] > 1.8
    assert decide(change.plan, score) is None
    assert decide(plan, _score([1.9, 0.7, 0.7, 0.7], since=1)) is None


def test_a_collapse_is_not_fed_with_capacity() -> None:
    assert collapsed([90, 5, 3, 2])
    assert not collapsed([90, 10])
    assert local_capacity(total=4.0)(Plan(alpha=(1.0,) * 4), _score([3.6, 0.2, 0.1, 0.1])) is None


def test_misplaced_is_the_share_that_has_to_move() -> None:
    assert misplaced([1, 1], [2, 0]) == 0.5
    assert misplaced([1, 1], [1, 1]) == 0


def test_the_cache_switches_with_hysteresis_and_patience() -> None:
    assert not cache_switch(False, 0.96, CACHE_STEPS - 1)
    assert cache_switch(False, 0.96, CACHE_STEPS)
    assert not cache_switch(False, 0.95, CACHE_STEPS)
    assert cache_switch(True, 0.86, 0)
    assert not cache_switch(True, 0.84, 0)


def test_the_cache_stays_off_where_the_gate_is_cheap() -> None:
    score = _score([1.0, 1.0], unchanged=0.99)
    linear_gate, deep_gate = assignment_cache(gate_share=0.004), assignment_cache(gate_share=0.3)
    assert linear_gate(Plan(), score) is None
    change = deep_gate(Plan(), score)
    assert change is not None
    assert change.plan.cached


def test_precision_follows_the_batch_with_slack() -> None:
    decide = precision_by_rows(rows=100)
    small = decide(Plan(), _score([1.0, 1.0], rows=64))
    assert small is not None
    assert small.plan.precision is Precision.INT8
    assert decide(small.plan, _score([1.0, 1.0], rows=110)) is None
    large = decide(small.plan, _score([1.0, 1.0], rows=200))
    assert large is not None
    assert large.plan.precision is Precision.BFLOAT16
    assert decide(large.plan, _score([1.0, 1.0], rows=90)) is None


def test_hot_experts_are_replicated_and_cold_ones_are_not() -> None:
    assert replicas([50, 30, 10, 10], processes=2) == (2, 2, 1, 1)


def test_auto_takes_the_rule_that_fits_the_plan() -> None:
    decide = auto()
    global_change, local_change = (
        decide(Plan(alpha=4.0), _score([1.0, 1.0])),
        decide(Plan(alpha=(4.0, 4.0)), _score([1.0, 1.0])),
    )
    assert global_change is not None
    assert isinstance(global_change.plan.alpha, float)
    assert local_change is not None
    assert isinstance(local_change.plan.alpha, tuple)
    assert decide(Plan(), _score([2.0, 0.0])) is None
