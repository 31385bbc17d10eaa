"""The layer as a module: state, export, other modules as experts, restrictions per call, cached assignments."""

from __future__ import annotations

import io

import pytest
import torch
from dynamoe import FfnExperts, Loss, MoE, Plan, SettingError, ShapeError
from dynamoe.cache import AssignmentCache, same_sets
from dynamoe.products import fastest_products
from torch import nn


def _experts(n: int = 4) -> FfnExperts:
    torch.manual_seed(0)
    return FfnExperts(n, 16, 32)


def _classifiers(n: int = 4, **settings: object) -> MoE:
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=-1)) for _ in range(n)]
    return MoE(experts, 2, d_model=6, **settings)  # type: ignore[arg-type]


def test_state_and_plan_survive_a_round_trip() -> None:
    layer, other = MoE(_experts(), 2, capacity=(1.0, 2.0, 0.5, 0.5)), MoE(FfnExperts(4, 16, 32), 2)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.rand(20, 16)
    assert other.plan == layer.plan
    assert torch.equal(layer(x), other(x))


@pytest.mark.parametrize("plan", [Plan(), Plan(alpha=0.7)])
def test_an_exported_program_gives_the_same(plan: Plan) -> None:
    layer, x = MoE(_experts(), 2, plan=plan).eval(), torch.rand(2, 10, 16)
    program = torch.export.export(layer, (x,))
    assert torch.allclose(program.module()(x), layer(x), atol=1e-6)


def test_tokens_keep_their_leading_dimensions() -> None:
    assert MoE(_experts(), 2)(torch.rand(2, 3, 5, 16)).shape == (2, 3, 5, 16)


def test_a_call_may_use_fewer_experts() -> None:
    layer, x = MoE(_experts(), 2).eval(), torch.rand(30, 16)
    layer(x, k=1, active=2)
    assert layer.observed is not None
    assert layer.observed.k == 1
    assert list(layer.observed.counts)[2:] == [0, 0]
    with pytest.raises(ShapeError, match="k=3 of active=2"):
        layer(x, k=3, active=2)


def test_an_input_of_another_type_is_refused_in_words() -> None:
    with pytest.raises(ShapeError, match="float64"):
        MoE(_experts(), 2).mix(torch.rand(4, 16).double(), torch.zeros(4, 1, dtype=torch.int64), torch.ones(4, 1))


def test_modules_as_experts_learn_with_both_losses() -> None:
    for loss, rows in ((Loss.COOPERATIVE, 12), (Loss.SPECIALISED, 24)):
        layer = _classifiers(loss=loss, balance=0.04)
        out = layer(torch.rand(12, 6))
        assert out.shape == (rows, 3)
        out.log().neg().mean().backward()
        assert next(layer.gate.parameters()).grad is not None
        assert layer.eval()(torch.rand(12, 6)).shape == (12, 3)


def test_when_all_is_dropped_the_output_is_zero_and_has_its_shape() -> None:
    assert _classifiers(capacity=0.0)(torch.rand(5, 6)).tolist() == [[0.0] * 3] * 5


def test_the_cache_is_keyed_by_sample_and_compares_sets() -> None:
    cache = AssignmentCache(10, 2)
    ids, experts = torch.tensor([7, 2]), torch.tensor([[0, 1], [2, 3]])
    assert cache.lookup(ids) is None
    assert cache.store(ids, experts, torch.rand(2, 2)) == 0.0
    assert cache.store(ids.flip(0), torch.tensor([[2, 3], [1, 0]]), torch.rand(2, 2)) == 1.0
    found = cache.lookup(torch.tensor([2]))
    assert found is not None
    assert found[0].tolist() == [[2, 3]]
    assert same_sets(torch.tensor([[1, 0]]), torch.tensor([[0, 1]])).all()


def test_a_sample_on_a_stale_assignment_gives_the_gate_no_task_gradient() -> None:
    layer = _classifiers(cache_samples=4, plan=Plan(cached=True))
    x, ids = torch.rand(4, 6), torch.arange(4)
    layer(x, sample_ids=ids).sum().backward()
    layer.zero_grad()
    other = layer.cache.lookup(ids)[0].roll(1, 0) if layer.cache is not None else None  # type: ignore[index]
    assert layer.cache is not None
    assert other is not None
    moved = (layer.cache.lookup(ids)[0] + 2) % 4  # type: ignore[index]
    layer.cache.store(ids, moved, torch.full((4, 2), 0.5))
    layer(x, sample_ids=ids).square().sum().backward()
    gradient = next(layer.gate.parameters()).grad
    assert gradient is not None
    assert gradient.abs().max() < 1e-7
    assert any(parameter.grad is not None for parameter in layer.experts.parameters())


def test_from_the_cache_the_gate_runs_only_on_its_turns() -> None:
    runs = []
    gate = nn.Linear(6, 4)
    gate.register_forward_hook(lambda *_: runs.append(1))
    layer = MoE(
        [nn.Linear(6, 3) for _ in range(4)], 2, gate=gate, cache_samples=8, gate_every=4, plan=Plan(cached=True)
    )
    x, ids = torch.rand(8, 6), torch.arange(8)
    for _ in range(9):
        layer(x, sample_ids=ids)
    assert len(runs) == 1 + 2
    with pytest.raises(SettingError, match="sample_ids"):
        layer(x)


def test_an_empty_batch_goes_through_forward_and_back() -> None:
    layer, x = MoE(_experts(), 2, balance=0.1, capacity=1.0), torch.rand(0, 16, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.shape == (0, 16)
    assert x.grad is not None
    assert float(layer.experts.up.grad.abs().sum()) == 0  # type: ignore[union-attr, operator]


def test_a_seed_makes_the_same_layer_whether_it_is_the_first_or_not() -> None:
    fastest_products.cache_clear()
    gates = []
    for _ in range(2):
        torch.manual_seed(3)
        gates.append(MoE(FfnExperts(4, 16, 32), 2))
        gates[-1].gate.reset_parameters()  # type: ignore[operator]
    assert torch.equal(gates[0].gate.weight, gates[1].gate.weight)  # type: ignore[arg-type]
