"""The fused FFN in plain torch operators with shapes that depend on nothing but the batch: CUDA, export and meta.

`torch.nn.functional.grouped_mm` takes the experts' places as a tensor, so that no count has to reach the host, and a
step can be captured in a CUDA graph. What is dropped is computed all the same and weighted with zero.

Around the products everything is memory traffic. Rows are spread to the experts and gathered back by permutations that
are known in both directions, so both backward passes are reads: autograd's own backward of an indexed read sorts the
indices and adds row by row. On CUDA the whole is compiled, so that what lies between two products is one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dynamoe.kernels import Activation, FfnShape

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.RELU: functional.relu,
    Activation.GELU: functional.gelu,
    Activation.SILU: functional.silu,
}
# Sorting takes a pass for every byte of its keys.
_MOST_NARROW_EXPERTS = torch.iinfo(torch.int16).max


def grouped_ffn(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    up: Tensor,
    down: Tensor,
    shape: FfnShape,
    limits: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The weighted sum [T, d] and the counts [n], as `kernels.fused_ffn` on the same plan gives them.

    limits [n] int64, on x's device: the most rows of each expert; None for no limit.
    """
    function = _compiled() if x.is_cuda and not torch.compiler.is_compiling() else _grouped_ffn
    return function(x, weights, experts, up, down, shape, limits)


def _grouped_ffn(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    up: Tensor,
    down: Tensor,
    shape: FfnShape,
    limits: Tensor | None,
) -> tuple[Tensor, Tensor]:
    flat = experts.reshape(-1)
    keys = flat.to(torch.int16) if shape.experts <= _MOST_NARROW_EXPERTS else flat
    ordered, order = torch.sort(keys, stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(shape.experts, device=x.device, dtype=keys.dtype), right=True)
    counts = torch.diff(bounds, prepend=bounds.new_zeros(1))
    places = torch.arange(len(flat), device=x.device)
    position = torch.empty_like(order).scatter_(0, order, places).view(experts.shape)
    if limits is not None:
        arrival = position - (bounds - counts)[experts]
        weights = torch.where(arrival < limits[experts], weights, 0)
    ends = bounds.to(torch.int32)
    spread: Tensor = _Spread.apply(x, order, position)
    first = functional.grouped_mm(spread, up.transpose(-2, -1), offs=ends)
    act = _ACTIVATIONS[shape.activation]
    hidden = act(first[:, : shape.d_ff]) * first[:, shape.d_ff :] if shape.gated else act(first)
    outputs = functional.grouped_mm(hidden, down.transpose(-2, -1), offs=ends)
    return _Mixed.apply(outputs, weights.to(x.dtype), order, position), counts


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    # A batch size is compiled for its own when it is the first, and any other once for all sizes.
    return torch.compile(_grouped_ffn)


class _Spread(torch.autograd.Function):
    """[T * k, d]: the rows of x [T, d] in the order of their experts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        return x[order // position.shape[1]]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (position,) = ctx.saved_tensors
        return gradient[position].sum(dim=1), None, None


class _Mixed(torch.autograd.Function):
    """[T, d]: the weighted sum of each row's outputs [T * k, d]; the same whatever the device's order of execution."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weights: Tensor, order: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(outputs, weights, order, position)
        # In single precision at least: a sum of k terms would be rounded k times.
        wide = torch.promote_types(outputs.dtype, torch.float32)
        return (outputs[position].to(wide) * weights.unsqueeze(-1).to(wide)).sum(dim=1).to(outputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        outputs, weights, order, position = ctx.saved_tensors
        # In the order of experts, as the products before want it.
        wide = torch.promote_types(outputs.dtype, torch.float32)
        here = gradient[order // weights.shape[1]].to(wide)
        to_outputs = (here * weights.reshape(-1)[order].to(wide).unsqueeze(-1)).to(outputs.dtype)
        to_weights = (here * outputs.to(wide)).sum(dim=-1)[position].to(weights.dtype)
        return to_outputs, to_weights, None, None
