"""Rows and weights between processes, with gradients that go the other way: `torch.distributed` under autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dynamoe.placement import home_of


def exchange(rows: Tensor, send: Sequence[int], receive: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
    """[sum(receive), d]: of rows [sum(send), d] each process gets its part, in the order of senders."""
    return _Exchange.apply(rows, list(send), list(receive), group)  # type: ignore[no-any-return]


def shadows(weights: Tensor, hot: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
    """[H, ...]: the hot experts' weights from their homes. `weights` [n / P, ...] are this process's own experts'.

    The backward pass adds all processes' gradients at the home.
    """
    return _Shadows.apply(weights, tuple(hot), group)  # type: ignore[no-any-return]


def same_everywhere(parameter: Tensor, group: dist.ProcessGroup | None) -> None:
    """Give it process 0's values in all."""
    with torch.no_grad():
        dist.broadcast(_bits(parameter.data), group_src=0, group=group)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup | None) -> Tensor:
        ctx.plain = send, receive, group
        return _all_to_all(rows, send, receive, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        send, receive, group = ctx.plain
        return _all_to_all(gradient, receive, send, group), None, None, None


class _Shadows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, hot: tuple[int, ...], group: dist.ProcessGroup | None) -> Tensor:
        ctx.plain = hot, group, weights.shape
        per_process, me = len(weights), dist.get_rank(group)
        out = weights.new_empty(len(hot), *weights.shape[1:])
        works = []
        for place, expert in zip(out, hot, strict=True):
            home, own = divmod(expert, per_process)
            if home == me:
                place.copy_(weights[own])
            works.append(dist.broadcast(_bits(place), group_src=home, group=group, async_op=True))
        _wait(works)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        hot, group, shape = ctx.plain
        per_process, me = shape[0], dist.get_rank(group)
        # Summed in single precision: of many processes' parts each would be rounded.
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        works = [
            dist.reduce(place, group_dst=home_of(expert, per_process=per_process), group=group, async_op=True)
            for place, expert in zip(wide, hot, strict=True)
        ]
        _wait(works)
        to_weights = gradient.new_zeros(shape)
        for place, expert in zip(wide, hot, strict=True):
            home, own = divmod(expert, per_process)
            if home == me:
                to_weights[own] = place.to(gradient.dtype)
        return to_weights, None, None


def _all_to_all(rows: Tensor, send: list[int], receive: list[int], group: dist.ProcessGroup | None) -> Tensor:
    out = rows.new_empty(sum(receive), *rows.shape[1:])
    dist.all_to_all_single(_bits(out), _bits(rows.contiguous()), receive, send, group=group)
    return out


def _bits(tensor: Tensor) -> Tensor:
    """The same memory in a type that every backend moves: gloo knows no bfloat16."""
    return tensor.view(torch.uint8) if tensor.dtype is torch.bfloat16 else tensor


def _wait(works: Sequence[dist.Work | None]) -> None:
    for work in works:
        if work is not None:
            work.wait()
