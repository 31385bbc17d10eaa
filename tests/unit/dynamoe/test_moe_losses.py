"""The two losses and the gate's gradient: outputs and gradients against the formulas of the paper's code."""

from __future__ import annotations

import pytest
import torch
from dynamoe.combine import combine, combine_specialised
from dynamoe.dispatch import group_by
from dynamoe.routing import Mixing, balanced, mixing_weights, route
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_reference import aggregate, kept
from torch import Tensor

_N, _K, _WIDTH = 5, 2, 3


def _routed(seed: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, _N, generator=generator, dtype=torch.float64)
    return torch.softmax(logits, -1).requires_grad_(), torch.topk(logits, _K).indices


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([None, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_the_cooperative_output_and_its_gradients(seed: int, batch: int, alpha: float | None) -> None:
    probabilities, experts = _routed(seed, batch)
    x = torch.rand(batch, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    scales = torch.arange(1, _N + 1, dtype=torch.float64).requires_grad_()
    parts, dispatch = group_by(x, experts, _N, alpha)
    grouped = torch.cat([scales[expert] * part for expert, part in enumerate(parts)])
    out = combine(grouped, mixing_weights(probabilities, experts, Mixing.PROBABILITY), dispatch)

    taken = kept(experts.tolist(), _N, None if alpha is None else [alpha] * _N)
    outputs = {pair: scales[expert] * x[pair[0]] for expert, pairs in taken.items() for pair in pairs}
    expected = aggregate(outputs, probabilities.gather(1, experts), _WIDTH)
    assert torch.allclose(out, expected)
    towards = torch.rand(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(seed + 1))
    leaves = (x, scales, probabilities)
    actual = torch.autograd.grad(out, leaves, towards)
    wanted = torch.autograd.grad(expected, leaves, towards, materialize_grads=True)
    for mine, theirs in zip(actual, wanted, strict=True):
        assert torch.allclose(mine, theirs)


@pytest.mark.parametrize("mixing", list(Mixing))
def test_gradcheck_through_the_gate(mixing: Mixing) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, _N, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.rand(12, _WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)

    def layer(logits: Tensor, values: Tensor) -> Tensor:
        routing = route(logits, _K)
        counts = torch.bincount(routing.experts.reshape(-1), minlength=_N)
        weights = mixing_weights(balanced(routing.probabilities, counts, 0.0), routing.experts, mixing)
        _, dispatch = group_by(values[:6], routing.experts, _N, 1.0)
        return combine(values[: len(dispatch.order)], weights, dispatch)

    assert torch.autograd.gradcheck(layer, (logits, values))


def test_the_balance_term_reaches_every_entry_and_rows_are_zero_mean() -> None:
    probabilities = torch.full((4, _N), 1 / _N, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([8, 0, 0, 0, 0])
    task = torch.randn(4, _N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(balanced(probabilities, counts, 0.04), probabilities, task)
    term = 0.04 * _N / 4 * counts.double()
    expected = task + term
    assert torch.allclose(gradient, expected - expected.mean(dim=1, keepdim=True))
    assert torch.allclose(gradient.sum(dim=1), torch.zeros(4, dtype=torch.float64))


def test_the_specialisation_loss_regresses_the_gate_toward_one_minus_the_error() -> None:
    probabilities, experts = _routed(1, 6)
    chosen = probabilities.detach().gather(1, experts).requires_grad_()
    x = torch.rand(6, _WIDTH, dtype=torch.float64)
    parts, dispatch = group_by(x, experts, _N, 1.0)
    grouped = torch.cat(parts).requires_grad_()
    out = combine_specialised(grouped, chosen, dispatch)
    assert out.shape == (12, _WIDTH)
    towards = torch.rand(12, _WIDTH, dtype=torch.float64)
    to_grouped, to_chosen = torch.autograd.grad(out, (grouped, chosen), towards)
    assert dispatch.dropped > 0
    for row in range(6):
        places = [int(place) for place in dispatch.position[row]]
        errors = [
            6 * float(towards[row * _K + slot].square().sum()) if place < len(dispatch.order) else 0.0
            for slot, place in enumerate(places)
        ]
        for slot, place in enumerate(places):
            if place == len(dispatch.order):
                assert to_chosen[row, slot] == 0
                assert out[row * _K + slot].eq(0).all()
                continue
            share = errors[slot] / sum(errors)
            assert to_chosen[row, slot].item() == pytest.approx(share - (1 - chosen[row, slot].item()))
            assert torch.allclose(to_grouped[place], chosen[row, slot] * towards[row * _K + slot])
