"""One feed-forward MoE layer (relu, no biases), d 512, f 2048, as different systems run it on the same weights.

Routing is made beforehand and the same for all, so that only dispatch, experts and combination are measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from dynamoe import Activation, FfnExperts, MoE, Plan
from dynamoe.dispatch import capacities, group
from torch import Tensor, nn

D_MODEL, D_FF = 512, 2048
GROUP_TOKENS = 1024
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Layer = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A cell of the grid."""

    experts: int
    k: int
    tokens: int
    dtype: str
    routing: str
    training: bool

    @property
    def name(self) -> str:
        mode = "train" if self.training else "forward"
        return f"{mode} {self.dtype} E{self.experts} k{self.k} T{self.tokens} {self.routing}"


@dataclass(frozen=True)
class Problem:
    """Weights, inputs and routing of a case."""

    case: Case
    up: nn.Parameter
    down: nn.Parameter
    dense_up: nn.Parameter
    dense_down: nn.Parameter
    x: Tensor
    chosen: Tensor
    weights: Tensor
    towards: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [self.up, self.down, self.dense_up, self.dense_down, self.x, self.weights]


def problem(case: Case, seed: int = 0) -> Problem:
    dtype = DTYPES[case.dtype]
    generator = torch.Generator().manual_seed(seed)

    def parameter(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(shape).normal_(0, 0.03, generator=generator).to(dtype))

    x = torch.randn(case.tokens, D_MODEL, generator=generator).to(dtype)
    weights = torch.softmax(torch.randn(case.tokens, case.k, generator=generator), dim=-1).to(dtype)
    return Problem(
        case,
        parameter(case.experts, D_FF, D_MODEL),
        parameter(case.experts, D_MODEL, D_FF),
        parameter(case.k * D_FF, D_MODEL),
        parameter(D_MODEL, case.k * D_FF),
        x.requires_grad_(case.training),
        route(case.tokens, case.experts, case.k, case.routing, generator),
        weights.requires_grad_(case.training),
        torch.randn(case.tokens, D_MODEL, generator=generator).to(dtype),
    )


def route(tokens: int, experts: int, k: int, routing: str, generator: torch.Generator) -> Tensor:
    """[T, k]: uniform, or Zipf with exponent 1 over the experts in a random order; never the same expert twice."""
    shares = torch.ones(experts)
    if routing == "zipf":
        shares = 1 / torch.arange(1, experts + 1)[torch.randperm(experts, generator=generator)]
    return torch.multinomial(shares.expand(tokens, experts), k, generator=generator)


def dense(made: Problem) -> Layer:
    """A dense FFN of the same active FLOPs: k times as wide."""
    return lambda: torch.relu(made.x @ made.dense_up.t()) @ made.dense_down.t()


def transformers_grouped(made: Problem) -> Layer:
    """transformers' own `grouped_mm` forward on a module with its attributes."""
    from transformers.integrations.moe import grouped_mm_experts_forward

    module = SimpleNamespace(
        up_proj=made.up, down_proj=made.down, num_experts=made.case.experts, act_fn=torch.relu, has_gate=False,
        has_bias=False, has_post_expert_norm=False, is_transposed=False, _is_expert_parallel=False,
    )  # fmt: skip
    forward: Any = grouped_mm_experts_forward
    return lambda: forward(module, made.x, made.chosen, made.weights)


def ours(made: Problem, plan: Plan | None = None, **changes: Any) -> Layer:
    """This library; `plan` or changes to the layer's own first plan."""
    layer = our_layer(made, plan, **changes)
    return lambda: layer.mix(made.x, made.chosen, made.weights)


def our_layer(made: Problem, plan: Plan | None = None, **changes: Any) -> MoE:
    case = made.case
    experts = FfnExperts(case.experts, D_MODEL, D_FF, activation=Activation.RELU, gated=False, device="meta")
    experts.up, experts.down = made.up, made.down
    layer = MoE(experts, case.k, plan=plan).train(case.training)
    if changes:
        layer.set_plan(layer.plan.with_(**changes))
    return layer


def one_hot(made: Problem, alpha: float, group_tokens: int | None) -> Layer:
    """GShard's dispatch: a one-hot mask [tokens, experts, slots] and einsum, over all tokens or in groups of 1024."""
    case = made.case
    size = case.tokens if group_tokens is None else min(group_tokens, case.tokens)
    slots = capacities(alpha, n=case.experts, k=case.k, batch=size)
    assert slots is not None

    def layer() -> Tensor:
        groups = case.tokens // size
        x = made.x.view(groups, size, D_MODEL)
        chosen = nn.functional.one_hot(made.chosen.view(groups, size * case.k), case.experts)
        place = (chosen.cumsum(dim=1) - 1) * chosen
        place = place.sum(dim=-1).view(groups, size, case.k)
        expert = made.chosen.view(groups, size, case.k)
        fits = (place < slots[0]).to(x.dtype)
        mask_expert = nn.functional.one_hot(expert, case.experts).to(x.dtype) * fits.unsqueeze(-1)
        mask_slot = nn.functional.one_hot(place.clamp(max=slots[0] - 1), slots[0]).to(x.dtype)
        dispatch = torch.einsum("gtke,gtkc->gtec", mask_expert, mask_slot)
        weights = made.weights.view(groups, size, case.k)
        mix = torch.einsum("gtk,gtke,gtkc->gtec", weights, mask_expert, mask_slot)
        rows = torch.einsum("gtec,gtd->egcd", dispatch, x).reshape(case.experts, -1, D_MODEL)
        hidden = torch.relu(torch.bmm(rows, made.up.transpose(1, 2)))
        outputs = torch.bmm(hidden, made.down.transpose(1, 2)).view(case.experts, groups, slots[0], D_MODEL)
        return torch.einsum("gtec,egcd->gtd", mix, outputs).reshape(case.tokens, D_MODEL)

    return layer


def dropped(made: Problem, alpha: float, group_tokens: int | None = None) -> int:
    """Assignments that a capacity of this factor drops, over all tokens or in groups."""
    case = made.case
    size = case.tokens if group_tokens is None else min(group_tokens, case.tokens)
    limits = capacities(alpha, n=case.experts, k=case.k, batch=size)
    return sum(group(part, case.experts, limits).dropped for part in made.chosen.split(size))
