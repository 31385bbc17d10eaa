"""Experts' weights prepared for evaluation: rearranged for the kernel, in fewer bytes where asked.

A small batch touches nearly every expert with a few rows each, so its time is the time to read the weights. Measured
for one weight of 512 x 2048 and 8 rows, one core of an AMD EPYC: float32 624 us, the same rearranged 340, bfloat16 368,
rearranged 195, int8 85; for 32 rows 1120, 786, 610, 432 and 240.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamoe.combine import with_zero_row
from dynamoe.dispatch import Dispatch
from dynamoe.errors import SettingError
from dynamoe.kernels import Activation, FfnShape, activate, weighted_sum
from dynamoe.plan import Precision
from dynamoe.products import onednn_linear, onednn_multiplies

# Symmetric: -127 to 127.
_INT8_STEPS = 127


@dataclass(frozen=True)
class Product:
    """One weight [o, i] in the form of its kernel: `multiply(rows [c, i], relu)` gives [c, o]."""

    rows: int
    multiply: Callable[[Tensor, bool], Tensor]

    def __call__(self, rows: Tensor, relu: bool) -> Tensor:
        return self.multiply(rows, relu)


@dataclass(frozen=True)
class PreparedExperts:
    """Two weights for every expert in the form of their kernel, and what they were made from."""

    precision: Precision
    dtype: torch.dtype
    """What activations are between the products."""
    up: tuple[Product, ...]
    down: tuple[Product, ...]
    versions: tuple[int, int]
    """torch's counters of in-place changes of `up` and `down`: other numbers mean stale weights."""


def versions(up: Tensor, down: Tensor) -> tuple[int, int]:
    """torch's counters of in-place changes."""
    return up._version, down._version  # noqa: SLF001 - no public name; torch.autograd documents the counter


def prepare(up: Tensor, down: Tensor, precision: Precision) -> PreparedExperts:
    """Prepare [n, f or 2f, d] and [n, d, f]. Raises SettingError where this machine cannot."""
    if precision is Precision.INT8:
        make, dtype = _int8, torch.float32
    else:
        dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else up.dtype
        if not onednn_multiplies(dtype):
            raise SettingError(f"precision={precision}: this machine's oneDNN has no {dtype}; use precision=parameters")
        make = _packed
    with torch.no_grad():
        ups, downs = (tuple(make(weight.to(dtype)) for weight in stacked.unbind()) for stacked in (up, down))
    return PreparedExperts(precision, dtype, ups, downs, versions(up, down))


def prepared_ffn(x: Tensor, weights: Tensor, prepared: PreparedExperts, dispatch: Dispatch, shape: FfnShape) -> Tensor:
    """`kernels.fused_ffn` without gradients, with prepared weights. [T, d], [T, k] to [T, d] in x's type.

    Everything but the products runs once for all experts: with a few rows each, an operator costs more to call than to
    run.
    """
    fused_relu = shape.activation is Activation.RELU and not shape.gated
    product = _int8_products if prepared.precision is Precision.INT8 else _packed_products
    first = product(x.to(prepared.dtype).index_select(0, dispatch.rows), dispatch.places, prepared.up, relu=fused_relu)
    hidden = first if fused_relu else activate(first, shape, first.new_empty(len(first), shape.d_ff))
    grouped = product(hidden, dispatch.places, prepared.down, relu=False)
    if dispatch.dropped:
        grouped = with_zero_row(grouped)
    return weighted_sum(grouped, dispatch.position, weights.to(prepared.dtype)).to(x.dtype)


def _packed_products(rows: Tensor, places: tuple[int, ...], weights: tuple[Product, ...], *, relu: bool) -> Tensor:
    parts = zip(rows.split(list(places)), weights, strict=True)
    return torch.cat(
        [weight(part, relu) for part, weight in parts if len(part)] or [rows.new_empty(0, weights[0].rows)]
    )


def _int8_products(rows: Tensor, places: tuple[int, ...], weights: tuple[Product, ...], *, relu: bool) -> Tensor:
    scales = _row_scales(rows)
    # Every product gets one row more, which holds the ends of the scale: the kernel measures the range of its batch,
    # and this makes it the same range always. A row's result then does not depend on the rest of its batch.
    parts = (rows / scales).split(list(places))
    ends = rows.new_zeros(1, rows.shape[1])
    # Half a step beyond the scale: a row's own largest value may come out a rounding error above 127.
    ends[0, 0], ends[0, 1] = _INT8_STEPS + 0.5, -_INT8_STEPS - 0.5
    products = [
        weight(torch.cat([part, ends]), relu)[:-1] for part, weight in zip(parts, weights, strict=True) if len(part)
    ]
    return torch.cat(products).mul_(scales) if products else rows.new_empty(0, weights[0].rows)


def _packed(weight: Tensor) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)  # noqa: SLF001 - see onednn_linear

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        return onednn_linear(rows, packed, relu=relu)

    return Product(len(weight), multiply)


def _int8(weight: Tensor) -> Product:
    scales = _row_scales(weight).squeeze(1)
    with warnings.catch_warnings():
        # torch means to retire its quantized tensors; this one lives for the next line only. Its successor in torch,
        # onednn.qlinear_pointwise, takes twice as long for up to 8 rows.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
        quantized = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales).long(), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    # Without VNNI, x86 adds products of bytes in 16 bits, which 8-bit activations can overflow; 7-bit ones cannot.
    narrow = not _has_vnni()

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        product = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        return product(rows, packed, narrow)  # type: ignore[no-any-return]

    return Product(len(weight), multiply)


def _has_vnni() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))


def _row_scales(matrix: Tensor) -> Tensor:
    """[c, 1]: what one step of a signed byte is worth in each row."""
    # A row of zeros has no scale of its own; any positive one gives zeros back.
    return matrix.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _INT8_STEPS
