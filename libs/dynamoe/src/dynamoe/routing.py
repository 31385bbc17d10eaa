"""Step one of four: which experts a row goes to, and with what weight."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Mixing(StrEnum):
    """What a chosen expert's output is multiplied with."""

    PROBABILITY = "probability"
    """Its softmax probability among all experts (the paper; Qwen-MoE and OLMoE with `norm_topk_prob=False`)."""
    NORMALIZED = "normalized"
    """Its share of the k chosen probabilities (Mixtral)."""


@dataclass(frozen=True)
class Routing:
    """The gate's choice for a batch of B rows and n experts."""

    probabilities: Tensor
    """[B, n], softmax over the experts; the gradient of the gate flows through it."""
    experts: Tensor
    """[B, k] int64, the k largest, largest first."""


def route(logits: Tensor, k: int) -> Routing:
    """Softmax in single precision (or better) and top-k. `logits` is [B, n]."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    probabilities = torch.softmax(logits, dim=-1, dtype=dtype)
    return Routing(probabilities, torch.topk(probabilities, k, dim=-1).indices)


def mixing_weights(probabilities: Tensor, experts: Tensor, mixing: Mixing) -> Tensor:
    """[B, k], the weights of the chosen experts; differentiable in `probabilities` ([B, n])."""
    chosen = probabilities.gather(1, experts)
    return chosen / chosen.sum(dim=-1, keepdim=True) if mixing is Mixing.NORMALIZED else chosen


def assignments_per_expert(experts: Tensor, n: int) -> Tensor:
    """[n] int64: how often each of n experts is chosen in [B, k]."""
    flat = experts.reshape(-1)
    if flat.device.type == "cpu":
        return torch.bincount(flat, minlength=n)
    # bincount waits for a GPU to tell the largest value.
    return flat.new_zeros(n).scatter_add_(0, flat, torch.ones_like(flat))


class _GateGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, probabilities: Tensor, counts: Tensor, balance: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.counts, ctx.balance = counts, balance
        return probabilities.view_as(probabilities)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        rows, n = gradient.shape
        term = (ctx.balance * n / max(1, rows)) * ctx.counts.to(gradient.dtype)
        gradient = gradient + term
        return gradient - gradient.mean(dim=-1, keepdim=True), None, None


def balanced(probabilities: Tensor, counts: Tensor, balance: float) -> Tensor:
    """The same probabilities, [B, n]; their gradient gets the paper's balance term and is made zero-mean.

    `counts` [n] are the rows that the gate wanted to send to each expert, dropped ones included. Every entry's gradient
    gets `balance * n / B * counts`, which pushes the gate away from busy experts; then each row's mean is taken off it,
    which changes nothing behind a softmax and keeps the gate's own scale from drifting.
    """
    return _GateGradient.apply(probabilities, counts, balance)  # type: ignore[no-any-return]
