"""Recompilation: old enough scores, one build at a time, the swap between steps, events; and the same bits after it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import pytest
import torch
from dynamoe import (
    Activation,
    Change,
    FfnExperts,
    MoE,
    Observation,
    Overflow,
    Plan,
    Precision,
    Recompile,
    Rows,
    SettingError,
)
from dynamoe.policies import local_capacity, precision_by_rows
from dynamoe.recompile import Recompiler, Score, next_score

_STEP = Observation(rows=10, k=1, counts=(7, 3))


@dataclass(frozen=True)
class _Built:
    plan: Plan


def _layer(**settings: object) -> MoE:
    torch.manual_seed(0)
    return MoE(FfnExperts(4, 16, 32, activation=Activation.RELU, gated=False), 2, **settings)  # type: ignore[arg-type]


def test_the_score_that_decides_is_launch_ahead_steps_old() -> None:
    asked: list[int] = []

    def trigger(plan: Plan, score: Score) -> bool:
        asked.append(score.counts[0])
        return False

    recompiler = Recompiler(Recompile(trigger, lambda plan, score: None, launch_ahead=2), _Built, lambda built: None)
    for step in range(5):
        recompiler.step(Plan(), replace(_STEP, counts=(step, 1)))
    assert asked == [0, 1, 2]


def test_the_old_plan_runs_until_the_new_one_is_built_and_nothing_is_decided_meanwhile() -> None:
    may_finish, decisions, placed = threading.Event(), [], []

    def build(plan: Plan) -> _Built:
        assert may_finish.wait(10)
        return _Built(plan)

    def alter(plan: Plan, score: Score) -> Change:
        decisions.append(score.step)
        return Change(Plan(alpha=2.0), "wanted")

    rule = Recompile(lambda plan, score: plan.alpha is None, alter, launch_ahead=0)
    recompiler = Recompiler(rule, build, lambda built: placed.append(built.plan), clock=iter(range(100)).__next__)
    assert [recompiler.step(Plan(), _STEP) for _ in range(4)] == [None] * 4
    assert (decisions, placed) == ([0], [])
    may_finish.set()
    event = recompiler.wait(Plan(), timeout_seconds=10)
    assert event is not None
    assert (event.reason, event.old, event.new, event.error) == ("wanted", Plan(), Plan(alpha=2.0), "")
    assert event.build_seconds > 0
    assert event.swap_seconds > 0
    assert placed == [Plan(alpha=2.0)]
    assert recompiler.score is not None
    assert recompiler.score.steps_since_change == 0


def test_a_plan_that_cannot_be_built_leaves_the_old_one() -> None:
    layer = _layer(
        policy=Recompile(
            lambda plan, score: plan.alpha is None, lambda plan, score: Change(Plan(alpha=(1.0,)), "bad"), 0
        )
    )
    before = layer.plan
    layer(torch.rand(8, 16))
    layer.step()
    event = layer.wait_for_plan(timeout_seconds=10)
    assert event is not None
    assert "alpha has 1 factors" in event.error
    assert layer.plan == before
    assert layer(torch.rand(8, 16)).shape == (8, 16)


def test_the_cache_score_starts_at_zero_and_the_need_at_the_first_step() -> None:
    first = next_score(None, replace(_STEP, unchanged=1.0))
    assert first.unchanged == 0.01
    assert first.needed == pytest.approx((1.4, 0.6))
    second = next_score(first, Observation(10, 1, (5, 5), unchanged=1.0))
    assert second.unchanged == pytest.approx(0.0199)
    # The gate did not run.
    assert next_score(second, Observation(10, 1, (5, 5), unchanged=None)).unchanged == second.unchanged
    assert second.needed == pytest.approx((0.99 * 1.4 + 0.01, 0.99 * 0.6 + 0.01))
    assert second.needed_now == (1.0, 1.0)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(alpha=1.1),
        Plan(alpha=(1.0, 2.0, 0.5, 0.5)),
        Plan(alpha=1.2, rows=Rows.STATIC),
        Plan(precision=Precision.INT8),
    ],
)
def test_a_swapped_plan_gives_the_bits_of_a_layer_that_began_with_it(plan: Plan) -> None:
    rule = Recompile(lambda old, score: old != plan, lambda old, score: Change(plan, "test"), launch_ahead=0)
    layer, fresh = _layer(policy=rule, balance=0.01), _layer(plan=plan, balance=0.01)
    x = torch.rand(50, 16)
    layer(x).sum().backward()
    layer.step()
    assert layer.wait_for_plan(timeout_seconds=10) is not None
    assert layer.plan == plan
    layer.zero_grad()
    for one in (layer, fresh):
        one(x).square().sum().backward()
    assert all(
        torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]
        for mine, theirs in zip(layer.parameters(), fresh.parameters(), strict=True)
    )
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), fresh.eval()(x))


def test_training_with_a_policy_moves_capacity_and_keeps_weights_and_optimizer_state() -> None:
    layer = _layer(capacity=(1.0,) * 4, policy=local_capacity(total=4.0, steps=1), balance=0.0)
    with torch.no_grad():
        next(layer.gate.parameters()).copy_(torch.randn(4, 16) * 2)
    optimizer = torch.optim.Adam(layer.parameters())
    x, dropped = torch.randn(200, 16) + 0.5, []
    for _ in range(12):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
        layer.step()
        layer.wait_for_plan(timeout_seconds=10)
        assert layer.observed is not None
        dropped.append(layer.observed.dropped)
    assert layer.events
    assert dropped[-1] < dropped[0] / 2
    assert sum(layer.plan.alphas(4) or ()) == pytest.approx(4.0)
    assert optimizer.state[next(layer.experts.parameters())]["step"] == 12


def test_a_capacity_that_may_grow_drops_nothing_and_counts_the_steps() -> None:
    layer = _layer(plan=Plan(alpha=0.5, overflow=Overflow.GROW))
    layer(torch.rand(40, 16))
    assert layer.observed is not None
    assert (layer.observed.dropped, layer.growths) == (0, 1)


def test_serving_follows_the_batch_size_with_its_precision() -> None:
    layer = _layer(policy=precision_by_rows(rows=32)).eval()
    with torch.no_grad():
        for rows, precision in ((8, Precision.INT8), (100, Precision.BFLOAT16), (8, Precision.INT8)):
            for _ in range(3):
                layer(torch.rand(rows, 16))
                layer.step()
                layer.wait_for_plan(timeout_seconds=10)
            assert layer.plan.precision is precision


def test_prepared_weights_are_made_anew_after_training_has_changed_them() -> None:
    layer = _layer(plan=Plan(precision=Precision.PACKED)).eval()
    x = torch.rand(8, 16)
    with torch.no_grad():
        before = layer(x)
        next(layer.experts.parameters()).mul_(2)
        assert torch.allclose(layer(x), 2 * before, atol=1e-6)


def test_plans_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingError, match="rows=static needs a capacity"):
        Plan(rows=Rows.STATIC)
    with pytest.raises(SettingError, match="zero or more"):
        Plan(alpha=-1.0)
    with pytest.raises(SettingError, match="2 factors, the layer 4 experts"):
        _layer(capacity=(1.0, 1.0))
    assert Plan.from_dict(Plan(alpha=(1.0, 2.0)).to_dict()) == Plan(alpha=(1.0, 2.0))
