"""Batching decides by plain data: oldest first, never too large, and no wait that does not pay."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st
from skyscraper_inference.batching import ArrivalRate, Cost, CostFit, Go, Wait, Waiting, expired, next_batch

requests = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 12), st.floats(0, 100), st.floats(0, 200)), max_size=30
)


CHEAP = Cost(0.0, 0.01)


def queues_of(made: list[tuple[str, int, float, float]]) -> dict[Hashable, list[Waiting]]:
    queues: dict[Hashable, list[Waiting]] = {}
    for number, (group, rows, arrived, deadline) in enumerate(sorted(made, key=lambda one: one[2])):
        queues.setdefault(group, []).append(Waiting(number, rows, rows * 100, arrived, deadline))
    return queues


def decide(
    queues: dict[Hashable, list[Waiting]], *, cost: Cost = CHEAP, rate: float = 100.0, now: float = 100.0
) -> Go | Wait:
    return next_batch(
        queues,
        now=now,
        max_rows=dict.fromkeys(queues, 8),
        costs=dict.fromkeys(queues, cost),
        rates=dict.fromkeys(queues, rate),
        max_window_seconds=0.05,
    )


@given(requests)
def test_a_batch_is_the_head_of_one_group_in_order_and_fits(made: list[tuple[str, int, float, float]]) -> None:
    queues = queues_of(made)
    decision = decide(queues)
    if not made:
        assert decision == Wait(None)
        return
    assert isinstance(decision, Go)
    queue = queues[decision.group]
    assert list(decision.numbers) == [waiting.number for waiting in queue[: len(decision.numbers)]]
    rows = sum(waiting.rows for waiting in queue[: len(decision.numbers)])
    assert rows <= 8 or len(decision.numbers) == 1


@given(requests.filter(bool))
def test_who_waited_longest_goes_first(made: list[tuple[str, int, float, float]]) -> None:
    queues = queues_of(made)
    decision = decide(queues)
    assert isinstance(decision, Go)
    oldest = min(queue[0].arrived_seconds for queue in queues.values())
    assert queues[decision.group][0].arrived_seconds == oldest


def test_without_a_fixed_cost_nobody_waits() -> None:
    assert decide({"a": [Waiting(0, 1, 1, 100.0, 200.0)]}, cost=Cost(0.0, 0.01), rate=1e6) == Go("a", (0,))


def test_a_large_fixed_cost_and_a_fast_stream_are_worth_a_short_wait() -> None:
    decision = decide({"a": [Waiting(0, 1, 1, 100.0, 200.0)]}, cost=Cost(0.02, 0.001), rate=1000.0)
    assert isinstance(decision, Wait)
    assert decision.seconds is not None
    assert 0 < decision.seconds <= 0.05


def test_a_slow_stream_is_not_worth_waiting_for() -> None:
    assert decide({"a": [Waiting(0, 1, 1, 100.0, 200.0)]}, cost=Cost(0.02, 0.001), rate=10.0) == Go("a", (0,))


def test_nobody_waits_past_a_deadline() -> None:
    near: dict[Hashable, list[Waiting]] = {"a": [Waiting(0, 1, 1, 100.0, 100.02)]}
    assert decide(near, cost=Cost(0.02, 0.001), rate=1000.0) == Go("a", (0,))


def test_the_window_is_over_for_one_who_has_waited_it_out() -> None:
    old: dict[Hashable, list[Waiting]] = {"a": [Waiting(0, 1, 1, 99.9, 200.0)]}
    assert decide(old, cost=Cost(0.02, 0.001), rate=1000.0) == Go("a", (0,))


@given(requests, st.floats(0, 200))
def test_exactly_those_past_their_deadline_expire(made: list[tuple[str, int, float, float]], now: float) -> None:
    for queue in queues_of(made).values():
        gone = set(expired(queue, now))
        assert gone == {waiting.number for waiting in queue if waiting.deadline_seconds <= now}


@given(st.floats(0, 0.1), st.floats(0.001, 0.1))
def test_the_fit_finds_the_line(fixed: float, per_row: float) -> None:
    fit = CostFit()
    for rows in (1, 2, 4, 8, 3):
        fit.add(rows, fixed + per_row * rows)
    cost = fit.cost()
    assert abs(cost.fixed_seconds - fixed) < 1e-6
    assert abs(cost.row_seconds - per_row) < 1e-6


def test_one_batch_size_tells_nothing_of_the_fixed_cost() -> None:
    fit = CostFit()
    fit.add(4, 0.4)
    assert fit.cost() == Cost(0.0, 0.1)


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0, 10)), max_size=100))
def test_a_fitted_cost_is_never_negative(batches: list[tuple[int, float]]) -> None:
    fit = CostFit()
    for rows, seconds in batches:
        fit.add(rows, seconds)
    assert fit.cost().row_seconds >= 0
    assert fit.cost().fixed_seconds >= -1e-9


def test_the_arrival_rate_counts_rows_over_time() -> None:
    rate = ArrivalRate()
    assert rate.rows_per_second(0.0) == 0
    for number in range(5):
        rate.add(number / 10, 8)
    assert rate.rows_per_second(0.5) == 80
