"""Step three of four on a CPU: gather, two matrix products, and the weighted sum, in one autograd function.

Both passes go block by block of experts, so that the rows just gathered are still in cache when they are multiplied.
The forward pass keeps one activation per assignment for the backward pass (torch's own graph keeps three or four
copies). The backward pass is written by hand: it gathers again instead of storing, and never has more than one block's
intermediate gradients alive.

Rows come in the order of `Dispatch`. T rows, k choices, n experts, R places in the grouped matrix, d and f the
layer's widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dynamoe.dispatch import SHORTEST_BATCH, Dispatch
from dynamoe.memory import Arena
from dynamoe.products import Products, can_group, multiply, weight_gradient

# What a block of experts keeps between two operators; about the second-level cache of two cores.
_BLOCK_BYTES = 4 * 1024**2
# An expert with more rows has a block of its own: its products are then chosen for it, and its results need no copy.
_MOST_SHARED_ROWS = 256


class Activation(StrEnum):
    RELU = "relu"
    GELU = "gelu"
    SILU = "silu"


@dataclass(frozen=True)
class FfnShape:
    """What a fused expert computes: `down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))`."""

    experts: int
    d_model: int
    d_ff: int
    activation: Activation
    gated: bool

    @property
    def up_rows(self) -> int:
        """Rows of the first weight: the gate's stand above the others, as in transformers' `gate_up_proj`."""
        return 2 * self.d_ff if self.gated else self.d_ff


# Called with (expert, gradient of up, gradient of down) as soon as the two are known; the tensors are reused after it.
ExpertGradient = Callable[[int, Tensor, Tensor], None]


def fused_ffn(
    x: Tensor,
    weights: Tensor,
    up: Tensor,
    down: Tensor,
    dispatch: Dispatch,
    shape: FfnShape,
    arena: Arena,
    products: Products,
    on_gradient: ExpertGradient | None = None,
) -> Tensor:
    """[T, d]: the weighted sum of the chosen experts' outputs.

    x [T, d], weights [T, k], up [n, f or 2f, d], down [n, d, f], all of one dtype. With `on_gradient` the weights'
    gradients are handed over expert by expert and never exist all at once; autograd then sees none.
    """
    return _FusedFfn.apply(x, weights, up, down, dispatch, shape, arena, products, on_gradient)  # type: ignore[no-any-return]


class _FusedFfn(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x: Tensor,
        weights: Tensor,
        up: Tensor,
        down: Tensor,
        dispatch: Dispatch,
        shape: FfnShape,
        arena: Arena,
        products: Products,
        on_gradient: ExpertGradient | None,
    ) -> Tensor:
        training = any(ctx.needs_input_grad)
        rows = dispatch.rows
        grouped = arena.take(len(rows) + 1, shape.d_model, dtype=x.dtype)
        grouped[-1].zero_()
        work = _Work(shape, arena, products, dispatch, x.dtype)
        first = _forward(x, up, down, rows, work, grouped, keep=training)
        out = weighted_sum(grouped, dispatch.position, weights)
        if training:
            ctx.save_for_backward(x, weights, up, down, rows, *first)
            ctx.plain = (work, on_gradient)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weights, up, down, rows, *first = ctx.saved_tensors
        work, on_gradient = ctx.plain
        dispatch = work.dispatch
        to_weights_grouped = torch.zeros(len(rows) + 1, dtype=x.dtype)
        to_x_grouped = work.take(len(rows) + 1, work.shape.d_model)
        to_x_grouped[-1].zero_()
        batch = _Batch(x, gradient, rows, dispatch.scale(weights).unsqueeze(1), to_x_grouped, to_weights_grouped)
        sink = _Stacked(work, up, down) if on_gradient is None else _OneByOne(work, on_gradient)
        _backward(batch, first, up, down, work, sink)
        to_x = weighted_sum(to_x_grouped, dispatch.position, weights) if ctx.needs_input_grad[0] else None
        to_weights = to_weights_grouped[dispatch.position] if ctx.needs_input_grad[1] else None
        stacked = sink.gradients if isinstance(sink, _Stacked) else (None, None)
        return to_x, to_weights, *stacked, None, None, None, None, None


class _Block(NamedTuple):
    """Neighbouring experts that are gone through together: few rows each, so that what they all keep between two
    operators fits the cache; or one expert with more."""

    experts: range
    places: list[int]
    """Of each expert."""
    start: int
    """The first place."""
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def equal(self) -> bool:
        """Whether every expert has as many rows, so that their products are one batch."""
        return len(self.places) > 1 and min(self.places) == max(self.places)

    @property
    def mixed(self) -> bool:
        """Whether the products come in a tensor of their own (grouped_mm has no place to write to)."""
        return len(self.places) > 1 and not self.equal


class _Work:
    """What both passes of a step share: sizes, blocks, workspaces and products."""

    def __init__(
        self, shape: FfnShape, arena: Arena, products: Products, dispatch: Dispatch, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.products = products
        self.dispatch = dispatch
        self.fused_relu = shape.activation is Activation.RELU and not shape.gated
        """Whether the activation is done in place, with the first product."""
        self._arena = arena
        self._dtype = dtype
        mixed = can_group(dtype, shape.d_model, shape.d_ff)
        self.blocks = list(blocks(dispatch.places, block_rows(shape, dtype), mixed=mixed))
        self.most = max((block.size for block in self.blocks), default=0)

    def take(self, *sizes: int) -> Tensor:
        return self._arena.take(*sizes, dtype=self._dtype)

    def multiply(
        self,
        block: _Block,
        rows: Tensor,
        weights: Tensor,
        out: Tensor,
        *,
        relu: bool = False,
        backward: bool = False,
    ) -> Tensor:
        """[size, o] from [size, i] and all experts' weights [n, i, o]: `out` or any other tensor."""
        here = weights[block.experts.start : block.experts.stop]
        if len(here) == 1:
            return multiply(rows, here[0], out, self.products, relu=relu, backward=backward)
        if block.mixed:
            ends = torch.tensor(list(accumulate(block.places)), dtype=torch.int32)
            out = functional.grouped_mm(rows, here, offs=ends)
        else:
            torch.bmm(rows.view(len(here), -1, rows.shape[1]), here, out=out.view(len(here), -1, out.shape[1]))
        return out.relu_() if relu else out

    def multiply_into(
        self, block: _Block, rows: Tensor, weights: Tensor, out: Tensor, *, backward: bool = False
    ) -> None:
        """The same, in `out` for certain."""
        result = self.multiply(block, rows, weights, out, backward=backward)
        if result is not out:
            out.copy_(result)


def block_rows(shape: FfnShape, dtype: torch.dtype) -> int:
    """The most rows of a block of several experts."""
    return _BLOCK_BYTES // (shape.up_rows * dtype.itemsize)


def blocks(places: Sequence[int], most_rows: int, *, mixed: bool) -> Iterator[_Block]:
    """Experts that take something, in order. `mixed` allows experts with different numbers of places in one block."""
    ends = list(accumulate(places, initial=0))
    alike = _alike(places)
    first = 0
    while first < len(places):
        if not places[first]:
            first += 1
            continue
        last = first + 1
        end_of_run = first + alike[first]
        while last < len(places) and ends[last + 1] - ends[first] <= most_rows:
            if max(places[first], places[last]) > _MOST_SHARED_ROWS:
                break
            if last >= end_of_run and (alike[first] >= SHORTEST_BATCH or alike[last] >= SHORTEST_BATCH or not mixed):
                break
            last += 1
        yield _Block(range(first, last), list(places[first:last]), ends[first], ends[last])
        first = last


def _alike(places: Sequence[int]) -> list[int]:
    """For each expert, how many from it on have as many places as it."""
    alike = [1] * len(places)
    for expert in range(len(places) - 2, -1, -1):
        if places[expert] == places[expert + 1]:
            alike[expert] += alike[expert + 1]
    return alike


def _forward(
    x: Tensor, up: Tensor, down: Tensor, rows: Tensor, work: _Work, grouped: Tensor, *, keep: bool
) -> list[Tensor]:
    """Fill `grouped` [R + 1, d]. Returns what the backward pass needs, where asked to keep it.

    That is, for every block, the first product [size, f or 2f]: after relu, or before the others.
    """
    shape = work.shape
    gathered = work.take(work.most, shape.d_model)
    places_to_keep = sum(block.size for block in work.blocks if not block.mixed)
    first = work.take(places_to_keep if keep else work.most, shape.up_rows)
    second = None if work.fused_relu else work.take(work.most, shape.d_ff)
    ups, downs = up.transpose(1, 2), down.transpose(1, 2)
    kept: list[Tensor] = []
    used = 0
    for block in work.blocks:
        size = block.size
        x_rows = torch.index_select(x, 0, rows[block.start : block.end], out=gathered[:size])
        room = first[used : used + size]
        if keep and not block.mixed:
            used += size
        product = work.multiply(block, x_rows, ups, room, relu=work.fused_relu)
        hidden = product if second is None else activate(product, shape, second[:size])
        work.multiply_into(block, hidden, downs, grouped[block.start : block.end])
        if keep:
            kept.append(product)
    return kept


class _Batch(NamedTuple):
    """What the backward pass reads and fills, but for the weights."""

    x: Tensor
    gradient: Tensor
    """[T, d], of the layer's output."""
    rows: Tensor
    scale: Tensor
    """[R, 1], the mixing weights."""
    to_x: Tensor
    """[R + 1, d]"""
    to_weights: Tensor
    """[R + 1]"""


class _Part(NamedTuple):
    """Rows of a block or of an expert, from which its weights' gradients are made."""

    x: Tensor
    """[c, d], times the mixing weight."""
    to_first: Tensor
    """[c, f or 2f]: the gradient of the first product, before the mixing weight."""
    scaled: Tensor
    """[c, d]: the gradient of the output, times the mixing weight."""
    hidden: Tensor
    """[c, f]"""


class _Stacked:
    """Weight gradients of all experts, for autograd."""

    def __init__(self, work: _Work, up: Tensor, down: Tensor) -> None:
        self.gradients = work.take(*up.shape), work.take(*down.shape)
        self._products = work.products
        for expert, count in enumerate(work.dispatch.places):
            if not count:
                self.gradients[0][expert].zero_()
                self.gradients[1][expert].zero_()

    def fill(self, block: _Block, rows: _Part) -> None:
        to_up, to_down = (gradient[block.experts.start : block.experts.stop] for gradient in self.gradients)
        if block.equal:
            batch = _Part(*(one.view(len(to_up), -1, one.shape[1]) for one in rows))
            torch.bmm(batch.scaled.transpose(1, 2), batch.hidden, out=to_down)
            torch.bmm(batch.to_first.transpose(1, 2), batch.x, out=to_up)
            return
        parts = (one.split(block.places) for one in rows)
        for up_here, down_here, *part in zip(to_up.unbind(), to_down.unbind(), *parts, strict=True):
            if len(part[0]):
                _weight_gradients(_Part(*part), up_here, down_here, self._products)


class _OneByOne:
    """Weight gradients of one expert at a time, handed over at once."""

    def __init__(self, work: _Work, on_gradient: ExpertGradient) -> None:
        shape = work.shape
        self._room = work.take(shape.up_rows, shape.d_model), work.take(shape.d_model, shape.d_ff)
        self._products = work.products
        self._on_gradient = on_gradient

    def fill(self, block: _Block, rows: _Part) -> None:
        parts = (one.split(block.places) for one in rows)
        for expert, *part in zip(block.experts, *parts, strict=True):
            if len(part[0]):
                _weight_gradients(_Part(*part), *self._room, self._products)
                self._on_gradient(expert, *self._room)


def _weight_gradients(rows: _Part, to_up: Tensor, to_down: Tensor, products: Products) -> None:
    """Of one expert."""
    weight_gradient(rows.scaled, rows.hidden, to_down, batched=products.batched)
    weight_gradient(rows.to_first, rows.x, to_up, batched=False)


def _backward(
    batch: _Batch, first: Sequence[Tensor], up: Tensor, down: Tensor, work: _Work, sink: _Stacked | _OneByOne
) -> None:
    """Fill `batch.to_x`, `batch.to_weights` and the sink's gradients. `first` is what `_forward` kept."""
    shape, most = work.shape, work.most
    x_room, gradient_room, scaled_room = (work.take(most, shape.d_model) for _ in range(3))
    to_hidden_room = work.take(most, shape.d_ff)
    hidden_room = None if work.fused_relu else work.take(most, shape.d_ff)
    to_first_room = None if work.fused_relu else work.take(most, shape.up_rows)
    for block, first_here in zip(work.blocks, first, strict=True):
        size = block.size
        here = slice(block.start, block.end)
        rows, scale = batch.rows[here], batch.scale[here]
        gradient_rows = torch.index_select(batch.gradient, 0, rows, out=gradient_room[:size])
        scaled_rows = torch.mul(gradient_rows, scale, out=scaled_room[:size])
        to_hidden = work.multiply(block, gradient_rows, down, to_hidden_room[:size], backward=True)
        hidden = first_here if hidden_room is None else activate(first_here, shape, hidden_room[:size])
        # <g, y> = <g, W h> = <W' g, h>: the outputs y need not be kept.
        _row_products(to_hidden, hidden, batch.to_weights[here])
        to_first = to_hidden if to_first_room is None else to_first_room[:size]
        activate_backward(to_hidden, first_here, shape, to_first)
        work.multiply_into(block, to_first, up, batch.to_x[here], backward=True)
        # The mixing weights go onto the narrow side of each product: here, and onto `to_x` when it is summed up.
        x_rows = torch.index_select(batch.x, 0, rows, out=x_room[:size]).mul_(scale)
        # Last: an optimizer may step an expert's weights as soon as it has their gradients.
        sink.fill(block, _Part(x_rows, to_first, scaled_rows, hidden))


def _row_products(a: Tensor, b: Tensor, out: Tensor) -> None:
    """[c]: the inner products of the rows of [c, f] and [c, f]."""
    if a.dtype is torch.bfloat16:
        # 0.4 of vecdot's time, which writes all products before it adds them; in single precision four times its time.
        torch.bmm(a.unsqueeze(1), b.unsqueeze(2), out=out.view(-1, 1, 1))
    else:
        torch.linalg.vecdot(a, b, out=out)


def weighted_sum(grouped: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """[T, d]: for every row the sum of its assignments' rows of `grouped` [R + 1, d], times `weights` [T, k]."""
    rows, k = position.shape
    offsets = torch.arange(0, rows * k, k)
    # Gathers and adds in one pass over memory, in single precision for bfloat16.
    return functional.embedding_bag(
        position.reshape(-1), grouped, offsets, mode="sum", per_sample_weights=weights.reshape(-1)
    )


def activate(first: Tensor, shape: FfnShape, out: Tensor) -> Tensor:
    """[c, f] from the first product [c, f or 2f], into `out`."""
    source = first[:, : shape.d_ff]
    match shape.activation:
        case Activation.RELU:
            torch.clamp(source, min=0, out=out)
        case Activation.GELU:
            torch.ops.aten.gelu.out(source, approximate="none", out=out)
        case Activation.SILU:
            torch.ops.aten.silu.out(source, out=out)
    return out.mul_(first[:, shape.d_ff :]) if shape.gated else out


def activate_backward(to_hidden: Tensor, first: Tensor, shape: FfnShape, out: Tensor) -> None:
    """The gradient of the first product [c, f or 2f], into `out`; destroys `to_hidden` [c, f]."""
    source, target = first[:, : shape.d_ff], out[:, : shape.d_ff]
    if shape.gated:
        activated = out[:, shape.d_ff :]
        activate(source, FfnShape(shape.experts, shape.d_model, shape.d_ff, shape.activation, gated=False), activated)
        activated.mul_(to_hidden)
        to_hidden.mul_(first[:, shape.d_ff :])
    match shape.activation:
        case Activation.RELU:
            torch.ops.aten.threshold_backward.grad_input(to_hidden, source, 0, grad_input=target)
        case Activation.GELU:
            torch.ops.aten.gelu_backward.grad_input(to_hidden, source, approximate="none", grad_input=target)
        case Activation.SILU:
            torch.ops.aten.silu_backward.grad_input(to_hidden, source, grad_input=target)
