"""Experts' weights prepared for evaluation: rearranged for the kernel, in fewer bytes where asked.

A small batch touches nearly every expert with a few rows each, so its time is the time to read the weights. Measured for
one weight of 512 x 2048 and 8 rows, one core of an AMD EPYC: float32 624 us, the same rearranged 340, bfloat16 368,
rearranged 195, int8 with its activations' quantisation 189; for 32 rows 1120, 786, 610, 432 and 316.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamoe.dispatch import Dispatch
from dynamoe.errors import SettingError
from dynamoe.kernels import Activation, FfnShape, activate, onednn_multiplies, weighted_sum
from dynamoe.memory import Arena
from dynamoe.plan import Precision

# Symmetric: -127 to 127. Activations are shifted into unsigned bytes, the type that x86's dot product takes them in;
# oneDNN falls back to a loop a hundred times slower for signed ones.
_INT8_STEPS = 127
_UINT8_ZERO = 128

# (rows [c, i], relu) -> [c, o]
Product = Callable[[Tensor, bool], Tensor]


@dataclass(frozen=True)
class PreparedExperts:
    """Two products for every expert, and what they were made from."""

    precision: Precision
    dtype: torch.dtype
    """What the products take."""
    products: tuple[tuple[Product, Product], ...]
    versions: tuple[int, int]
    """torch's counters of in-place changes of `up` and `down`: other numbers mean stale weights."""


def prepare(up: Tensor, down: Tensor, precision: Precision) -> PreparedExperts:
    """Prepare [n, f or 2f, d] and [n, d, f]. Raises SettingError where this machine cannot."""
    versions = (up._version, down._version)  # noqa: SLF001 - torch's documented way to see in-place changes
    if precision is Precision.INT8:
        make, dtype = _int8, torch.float32
    else:
        dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else up.dtype
        if not onednn_multiplies(dtype):
            raise SettingError(f"precision={precision}: this machine's oneDNN has no {dtype}; use precision=parameters")
        make = _packed
    with torch.no_grad():
        products = tuple((make(up[expert].to(dtype)), make(down[expert].to(dtype))) for expert in range(len(up)))
    return PreparedExperts(precision, dtype, products, versions)


def prepared_ffn(
    x: Tensor, weights: Tensor, prepared: PreparedExperts, dispatch: Dispatch, shape: FfnShape, arena: Arena
) -> Tensor:
    """`kernels.fused_ffn` without gradients, with prepared weights. [T, d], [T, k] to [T, d] in x's type."""
    source = x.to(prepared.dtype)
    rows = dispatch.rows.split(list(dispatch.places))
    grouped = arena.take(sum(dispatch.places) + 1, shape.d_model, dtype=prepared.dtype)
    grouped[-1].zero_()
    fused_relu = shape.activation is Activation.RELU and not shape.gated
    places = zip(rows, grouped[:-1].split(list(dispatch.places)), prepared.products, strict=True)
    for rows_here, out, (up, down) in places:
        count = len(rows_here)
        if count:
            first = up(source.index_select(0, rows_here), fused_relu)
            hidden = first if fused_relu else activate(first, shape, first.new_empty(count, shape.d_ff))
            out.copy_(down(hidden, False))
    return weighted_sum(grouped, dispatch.position, weights.to(prepared.dtype)).to(x.dtype)


def _packed(weight: Tensor) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, packed, None, "relu" if relu else "none", [], "")  # type: ignore[no-any-return]

    return multiply


def _int8(weight: Tensor) -> Product:
    scales = _row_scales(weight).squeeze(1)
    whole = (weight / scales.unsqueeze(1)).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(whole, None)
    zeros = torch.zeros(len(weight), dtype=torch.int32)

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        # One scale per row, taken in after the product, makes a row's result independent of the rest of its batch.
        row_scales = _row_scales(rows)
        quantized = (rows / row_scales).round_().add_(_UINT8_ZERO).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, _UINT8_ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32,
            "relu" if relu else "none", [], "",
        )  # fmt: skip
        return product.mul_(row_scales)  # type: ignore[no-any-return]

    return multiply


def _row_scales(matrix: Tensor) -> Tensor:
    """[c, 1]: what one step of a signed byte is worth in each row."""
    # A row of zeros has no scale of its own; any positive one gives zeros back.
    return matrix.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _INT8_STEPS
