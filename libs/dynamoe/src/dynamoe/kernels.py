"""Step three of four on a CPU: gather, two matrix products, and the weighted sum, in one autograd function.

The forward pass goes expert by expert, so that the rows just gathered are still in cache when they are multiplied, and
keeps one activation per assignment for the backward pass (torch's own graph keeps three or four copies). The backward
pass is written by hand: it gathers again instead of storing, and never has more than one expert's intermediate
gradient alive.

Rows come in the order of `Dispatch`. T rows, k choices, n experts, R places in the grouped matrix, d and f the
layer's widths.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dynamoe.dispatch import Dispatch
from dynamoe.memory import Arena

# Rows and repetitions of the trial: the size of an expert's share of a training batch, in a tenth of a second.
_TRIAL_ROWS = 64
_TRIALS = 12


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


class Product(StrEnum):
    """Which library multiplies rows with a weight. Gradients of weights are always torch.mm into their place."""

    MM = "mm"
    """torch.mm into a slice: MKL in single precision, oneDNN in bfloat16."""
    ONEDNN = "onednn"
    """oneDNN in every precision, relu included. On an AMD EPYC 10 to 14 % faster than MKL in single precision."""


@lru_cache(maxsize=64)
def fastest_product(d_model: int, d_ff: int, dtype: torch.dtype) -> Product:
    """Measured once per process and layer width: a few hundred rows through one weight, about 50 ms."""
    if not onednn_multiplies(dtype):
        return Product.MM
    # No random numbers: the layer's weights come from the same generator, and must not depend on whether this has run.
    x, weight = (torch.full((rows, d_model), 0.5, dtype=dtype) for rows in (_TRIAL_ROWS, d_ff))
    out = torch.empty(_TRIAL_ROWS, d_ff, dtype=dtype)
    seconds: dict[Product, list[float]] = {product: [] for product in Product}
    for _ in range(_TRIALS):
        for product in Product:
            started = time.perf_counter()
            multiply(x, weight, out, product, relu=True)
            seconds[product].append(time.perf_counter() - started)
    # oneDNN must be clearly ahead: it allocates what it returns, which the trial hardly sees.
    return Product.ONEDNN if min(seconds[Product.ONEDNN]) < 0.97 * min(seconds[Product.MM]) else Product.MM


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's linear operator for this type on this machine."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - as torch's own compiler asks


def onednn_linear(x: Tensor, weight: Tensor, *, relu: bool) -> Tensor:
    """[c, o], a new tensor, from [c, i] and [o, i]; the weight may be strided or rearranged."""
    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - torch's compiler emits it; there is no public name
    return linear(x, weight, None, "relu" if relu else "none", [], "")  # type: ignore[no-any-return]


def multiply(x: Tensor, weight: Tensor, out: Tensor, product: Product, *, relu: bool) -> Tensor:
    """`x @ weight.T`, [c, i] and [o, i] to [c, o]; with relu where asked. The result may or may not be `out`."""
    if product is Product.ONEDNN:
        return onednn_linear(x, weight, relu=relu)
    torch.mm(x, weight.t(), out=out)
    return out.relu_() if relu else out


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
    product: Product,
    on_gradient: ExpertGradient | None = None,
) -> Tensor:
    """[T, d]: the weighted sum of the chosen experts' outputs.

    x [T, d], weights [T, k], up [n, f or 2f, d], down [n, d, f], all of one dtype. With `on_gradient` the weights'
    gradients are handed over expert by expert and never exist all at once; autograd then sees none.
    """
    return _FusedFfn.apply(x, weights, up, down, dispatch, shape, arena, product, on_gradient)  # type: ignore[no-any-return]


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
        product: Product,
        on_gradient: ExpertGradient | None,
    ) -> Tensor:
        training = any(ctx.needs_input_grad)
        rows = dispatch.rows
        grouped = arena.take(len(rows) + 1, shape.d_model, dtype=x.dtype)
        grouped[-1].zero_()
        first = _forward(x, up, down, rows, dispatch, shape, arena, product, grouped, keep=training)
        out = weighted_sum(grouped, dispatch.position, weights)
        if training:
            ctx.save_for_backward(x, weights, up, down, rows, *first)
            ctx.plain = (dispatch, shape, arena, product, on_gradient)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weights, up, down, rows, *first = ctx.saved_tensors
        dispatch, shape, arena, product, on_gradient = ctx.plain
        to_weights_grouped = torch.zeros(len(rows) + 1, dtype=x.dtype)
        to_x_grouped = arena.take(len(rows) + 1, shape.d_model, dtype=x.dtype)
        to_x_grouped[-1].zero_()
        sink = _stacked_gradients(up, down, arena) if on_gradient is None else None
        step = _BackwardStep(shape, arena, product, max(dispatch.places, default=0), x.dtype)
        scale = dispatch.scale(weights).unsqueeze(1)
        gathered = [arena.take(len(rows), shape.d_model, dtype=x.dtype) for _ in range(3)]
        x_rows = torch.index_select(x, 0, rows, out=gathered[0])
        gradient_rows = torch.index_select(gradient, 0, rows, out=gathered[1])
        scaled_rows = torch.mul(gradient_rows, scale, out=gathered[2])
        spans = _spans(dispatch)
        sizes = [end - start for _, start, end in spans]
        tensors = (x_rows, gradient_rows, scaled_rows, scale, to_x_grouped[:-1], to_weights_grouped[:-1])
        parts = (tensor.split(sizes) for tensor in tensors)
        for (expert, _, _), first_here, *part in zip(spans, first, *parts, strict=True):
            to_up, to_down = step.single_gradients() if sink is None else (sink[0][expert], sink[1][expert])
            step.run(_Rows(first_here, *part), up[expert], down[expert], to_up, to_down)
            if on_gradient is not None:
                on_gradient(expert, to_up, to_down)
        if sink is not None:
            for expert, count in enumerate(dispatch.places):
                if not count:
                    sink[0][expert].zero_()
                    sink[1][expert].zero_()
        to_x = weighted_sum(to_x_grouped, dispatch.position, None) if ctx.needs_input_grad[0] else None
        to_weights = to_weights_grouped[dispatch.position] if ctx.needs_input_grad[1] else None
        stacked = (None, None) if sink is None else sink
        return to_x, to_weights, *stacked, None, None, None, None, None


def _forward(
    x: Tensor,
    up: Tensor,
    down: Tensor,
    rows: Tensor,
    dispatch: Dispatch,
    shape: FfnShape,
    arena: Arena,
    product: Product,
    grouped: Tensor,
    *,
    keep: bool,
) -> list[Tensor]:
    """Fill `grouped` [R + 1, d]. Returns what the backward pass needs, where asked to keep it.

    That is, for every expert that takes something, the first product [c, f or 2f]: after relu, or before the others.
    """
    spans = _spans(dispatch)
    sizes = [end - start for _, start, end in spans]
    most = max(sizes, default=0)
    gathered = arena.take(most, shape.d_model, dtype=x.dtype)
    fused_relu = shape.activation is Activation.RELU and not shape.gated
    first = arena.take(len(rows) if keep else most, shape.up_rows, dtype=x.dtype)
    room = first.split(sizes) if keep else [first[:size] for size in sizes]
    second = None if fused_relu else arena.take(most, shape.d_ff, dtype=x.dtype)
    kept: list[Tensor] = []
    pieces = zip(spans, rows.split(sizes), room, grouped[:-1].split(sizes), strict=True)
    for (expert, _, _), rows_here, room_here, out in pieces:
        count = len(rows_here)
        x_rows = torch.index_select(x, 0, rows_here, out=gathered[:count])
        product_here = multiply(x_rows, up[expert], room_here, product, relu=fused_relu)
        hidden = product_here if second is None else activate(product_here, shape, second[:count])
        result = multiply(hidden, down[expert], out, product, relu=False)
        if result is not out:
            out.copy_(result)
        if keep:
            kept.append(product_here)
    return kept


class _Rows(NamedTuple):
    """One expert's rows in the backward pass: c of them."""

    first: Tensor
    """[c, f or 2f], as the forward pass kept it."""
    x: Tensor
    gradient: Tensor
    """[c, d], of the layer's output; `scaled` is the same times the mixing weights."""
    scaled: Tensor
    scale: Tensor
    """[c, 1], the mixing weights."""
    to_x: Tensor
    to_weights: Tensor


class _BackwardStep:
    """One expert's share of the backward pass, and the workspaces that all experts share."""

    def __init__(self, shape: FfnShape, arena: Arena, product: Product, most: int, dtype: torch.dtype) -> None:
        self._shape = shape
        self._arena = arena
        self._product = product
        self._dtype = dtype
        self._in_place = shape.activation is Activation.RELU and not shape.gated
        self._to_hidden = arena.take(most, shape.d_ff, dtype=dtype)
        self._hidden = None if self._in_place else arena.take(most, shape.d_ff, dtype=dtype)
        self._to_first = None if self._in_place else arena.take(most, shape.up_rows, dtype=dtype)
        self._single: tuple[Tensor, Tensor] | None = None

    def single_gradients(self) -> tuple[Tensor, Tensor]:
        """Room for one expert's weight gradients."""
        if self._single is None:
            shape, take = self._shape, self._arena.take
            self._single = (
                take(shape.up_rows, shape.d_model, dtype=self._dtype),
                take(shape.d_model, shape.d_ff, dtype=self._dtype),
            )
        return self._single

    def run(self, rows: _Rows, up: Tensor, down: Tensor, to_up: Tensor, to_down: Tensor) -> None:
        """Fill `rows.to_x` [c, d], `rows.to_weights` [c], `to_up` and `to_down`."""
        count = len(rows.x)
        to_hidden = multiply(rows.gradient, down.t(), self._to_hidden[:count], self._product, relu=False)
        hidden = rows.first if self._hidden is None else activate(rows.first, self._shape, self._hidden[:count])
        # <g, y> = <g, W h> = <W' g, h>: the outputs y need not be kept.
        torch.linalg.vecdot(to_hidden, hidden, out=rows.to_weights)
        torch.mm(rows.scaled.t(), hidden, out=to_down)
        to_hidden.mul_(rows.scale)
        to_first = to_hidden if self._to_first is None else self._to_first[:count]
        activate_backward(to_hidden, rows.first, self._shape, to_first)
        torch.mm(to_first.t(), rows.x, out=to_up)
        result = multiply(to_first, up.t(), rows.to_x, self._product, relu=False)
        if result is not rows.to_x:
            rows.to_x.copy_(result)


def weighted_sum(grouped: Tensor, position: Tensor, weights: Tensor | None) -> Tensor:
    """[T, d]: for every row the sum of its assignments' rows of `grouped` [R + 1, d], times `weights` [T, k]."""
    rows, k = position.shape
    if k == 1 and weights is None:
        return grouped.index_select(0, position.reshape(-1))
    offsets = torch.arange(0, rows * k, k)
    scale = None if weights is None else weights.reshape(-1)
    # Gathers and adds in one pass over memory, in single precision for bfloat16.
    return functional.embedding_bag(position.reshape(-1), grouped, offsets, mode="sum", per_sample_weights=scale)


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


def _spans(dispatch: Dispatch) -> list[tuple[int, int, int]]:
    """(expert, first place, end) of every expert that takes something."""
    ends = list(accumulate(dispatch.places))
    return [
        (expert, end - count, end)
        for expert, (count, end) in enumerate(zip(dispatch.places, ends, strict=True))
        if count
    ]


def _stacked_gradients(up: Tensor, down: Tensor, arena: Arena) -> tuple[Tensor, Tensor]:
    return arena.take(*up.shape, dtype=up.dtype), arena.take(*down.shape, dtype=down.dtype)
