"""Experts' weights prepared for evaluation: rearranged for the kernel, in fewer bytes where asked.

A small batch touches nearly every expert with a few rows each, so its time is the time to read the weights. Measured
for one weight of 512 x 2048 and 8 rows, one core of an AMD EPYC: float32 624 us, the same rearranged 340, bfloat16 368,
rearranged 195, int8 85; for 32 rows 1120, 786, 610, 432 and 240.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamoe.combine import with_zero_row
from dynamoe.dispatch import Dispatch
from dynamoe.errors import SettingError
from dynamoe.int8 import Int8Kernel, Multiply, fastest_kernel, pack, prepare_rows, scales
from dynamoe.kernels import Activation, FfnShape, activate, weighted_sum
from dynamoe.plan import Precision
from dynamoe.products import onednn_linear, onednn_multiplies


@dataclass(frozen=True)
class PreparedExperts:
    """Two weights for every expert in the form of their kernel, and what they were made from."""

    precision: Precision
    dtype: torch.dtype
    """What activations are between the products."""
    up: Weights
    down: Weights
    versions: tuple[int, int]
    """torch's counters of in-place changes of `up` and `down`: other numbers mean stale weights."""


@dataclass(frozen=True)
class Weights:
    """One weight [o, i] of every expert."""

    width: int
    """o"""
    multiply: tuple[Multiply, ...]
    int8: Int8Kernel | None

    def products(self, rows: Tensor, places: tuple[int, ...], *, relu: bool) -> Tensor:
        """[R, o] from [R, i], of which each expert has `places`."""
        if self.int8 is None:
            return self._products(rows, places, relu=relu)
        row_scales = scales(rows)
        return self._products(prepare_rows(rows, row_scales, self.int8), places, relu=relu).mul_(row_scales)

    def _products(self, rows: Tensor, places: tuple[int, ...], *, relu: bool) -> Tensor:
        chosen = [expert for expert, count in enumerate(places) if count]
        parts = rows.split([places[expert] for expert in chosen])
        products = [self.multiply[expert](part, relu) for expert, part in zip(chosen, parts, strict=True)]
        if not products:
            return torch.empty(0, self.width, dtype=torch.float32 if self.int8 is not None else rows.dtype)
        return torch.cat(products)


def versions(up: Tensor, down: Tensor) -> tuple[int, int]:
    """torch's counters of in-place changes."""
    return up._version, down._version  # noqa: SLF001 - no public name; torch.autograd documents the counter


def prepare(up: Tensor, down: Tensor, precision: Precision) -> PreparedExperts:
    """Prepare [n, f or 2f, d] and [n, d, f]. Raises SettingError where this machine cannot."""
    dtype = {Precision.INT8: torch.float32, Precision.BFLOAT16: torch.bfloat16}.get(precision, up.dtype)
    if precision is not Precision.INT8 and not onednn_multiplies(dtype):
        raise SettingError(f"precision={precision}: this machine's oneDNN has no {dtype}; use precision=parameters")
    with torch.no_grad():
        ups, downs = (_weights(stacked.to(dtype), int8=precision is Precision.INT8) for stacked in (up, down))
    return PreparedExperts(precision, dtype, ups, downs, versions(up, down))


def prepared_ffn(x: Tensor, weights: Tensor, prepared: PreparedExperts, dispatch: Dispatch, shape: FfnShape) -> Tensor:
    """`kernels.fused_ffn` without gradients, with prepared weights. [T, d], [T, k] to [T, d] in x's type.

    Everything but the products runs once for all experts: with a few rows each, an operator costs more to call than to
    run.
    """
    fused_relu = shape.activation is Activation.RELU and not shape.gated
    rows = x.to(prepared.dtype).index_select(0, dispatch.rows)
    first = prepared.up.products(rows, dispatch.places, relu=fused_relu)
    hidden = first if fused_relu else activate(first, shape, first.new_empty(len(first), shape.d_ff))
    grouped = prepared.down.products(hidden, dispatch.places, relu=False)
    if dispatch.dropped:
        grouped = with_zero_row(grouped)
    return weighted_sum(grouped, dispatch.position, weights.to(prepared.dtype)).to(x.dtype)


def _weights(stacked: Tensor, *, int8: bool) -> Weights:
    _, height, width = stacked.shape
    kernel = fastest_kernel(width, height) if int8 else None
    made = (_packed(weight) if kernel is None else pack(weight, kernel) for weight in stacked.unbind())
    return Weights(height, tuple(made), kernel)


def _packed(weight: Tensor) -> Multiply:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)  # noqa: SLF001 - see onednn_linear

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        return onednn_linear(rows, packed, relu=relu)

    return multiply
