"""8-bit products: two kernels of torch, of which a trial chooses the faster.

Rows and weights are signed bytes, so that a product is a sum of integers, which both kernels compute exactly. Measured
on two cores of an Intel Xeon with AMX, weights of 512 x 2048 not in cache, for 1, 8, 16 and 64 rows: oneDNN 54, 48, 56
and 78 us, FBGEMM 57, 84, 100 and 219, bfloat16 rearranged 114, 134, 128 and 161. On an AMD EPYC without AMX oneDNN took
1.7 times FBGEMM's time for up to 8 rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache, partial

import torch
from torch import Tensor

from dynamoe.trial import least_seconds

# Symmetric: -127 to 127.
_STEPS = 127
_TRIAL_ROWS = 8
_TRIALS = 20

Multiply = Callable[[Tensor, bool], Tensor]
"""Rows [c, i] as `prepare_rows` made them, and whether to apply relu: [c, o] float32."""


class Int8Kernel(StrEnum):
    FBGEMM = "fbgemm"
    """torch's quantized linear operator. It measures the range of its batch by itself, and takes floats."""
    ONEDNN = "onednn"
    """The operator that torch's compiler emits for quantized models."""


def scales(matrix: Tensor) -> Tensor:
    """[c, 1]: what one step of a signed byte is worth in each row."""
    # A row of zeros has no scale of its own; any positive one gives zeros back.
    return matrix.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _STEPS


def prepare_rows(rows: Tensor, row_scales: Tensor, kernel: Int8Kernel) -> Tensor:
    """Float32 [c, i], scaled and rounded, in the kernel's type."""
    steps = (rows / row_scales).round_()
    return steps.to(torch.int8) if kernel is Int8Kernel.ONEDNN else steps


def pack(weight: Tensor, kernel: Int8Kernel) -> Multiply:
    """The weight [o, i] float32 in a signed byte each, with one scale per row."""
    make = _onednn if kernel is Int8Kernel.ONEDNN else _fbgemm
    return make(weight, scales(weight).squeeze(1))


@lru_cache(maxsize=64)
def fastest_kernel(width: int, height: int) -> Int8Kernel:
    """For weights of this form on this machine, measured once per process in a few milliseconds."""
    if not (_has("avx512_vnni") and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        return Int8Kernel.FBGEMM
    # No random numbers: models are made from the same generator.
    weight, rows = torch.full((height, width), 0.5), torch.ones(_TRIAL_ROWS, width)
    with torch.no_grad():
        ways = [partial(pack(weight, one), prepare_rows(rows, scales(rows), one), False) for one in Int8Kernel]
        seconds = least_seconds(ways, rounds=_TRIALS)
    return min(zip(seconds, Int8Kernel, strict=True))[1]


def _onednn(weight: Tensor, weight_scales: Tensor) -> Multiply:
    steps = (weight / weight_scales.unsqueeze(1)).round_().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(steps, None)
    zeros = torch.zeros(len(weight), dtype=torch.int32)

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        name = "relu" if relu else "none"
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            rows, 1.0, 0, packed, weight_scales, zeros, None, 1.0, 0, torch.float32, name, [], ""
        )

    return multiply


def _fbgemm(weight: Tensor, weight_scales: Tensor) -> Multiply:
    with warnings.catch_warnings():
        # torch means to retire its quantized tensors; this one lives for the next line only.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*")
        zeros = torch.zeros_like(weight_scales).long()
        quantized = torch.quantize_per_channel(weight, weight_scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    # Without VNNI, x86 adds products of bytes in 16 bits, which 8-bit activations can overflow; 7-bit ones cannot.
    narrow = not _has("avx512_vnni")
    # One row more holds the ends of the scale: the kernel then finds the same range for every batch, and a row's result
    # does not depend on the others. 255 steps from -127.5 to 127.5 are worth 1 each.
    ends = torch.zeros(1, weight.shape[1])
    ends[0, 0], ends[0, 1] = _STEPS + 0.5, -_STEPS - 0.5

    def multiply(rows: Tensor, relu: bool) -> Tensor:
        product = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        return product(torch.cat([rows, ends]), packed, narrow)[:-1]  # type: ignore[no-any-return]

    return multiply


def _has(feature: str) -> bool:
    return bool(torch.cpu.get_capabilities().get(feature, False))
