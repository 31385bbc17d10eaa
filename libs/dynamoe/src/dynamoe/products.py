"""Which library multiplies an expert's rows with its weights: measured once per process and width, then kept in a plan.

No library is the fastest everywhere. Measured on two cores of an Intel Xeon with AMX, weights of 512 x 2048, none in
cache:

* In single precision oneDNN takes 0.64 of the time of torch.mm (MKL) for 16 rows, 0.9 for 256 and 1.1 for 2048; on an
  AMD EPYC 0.86 to 0.9 for all.
* In bfloat16 torch.mm is oneDNN, without a fresh result. torch.bmm over 64 experts with 8 to 16 rows each takes 0.65 to
  0.8 of the time of a product for each; for the gradient of one wide weight from few rows 0.6. (In single precision
  0.8 to 1.25: padding costs more than the batch saves.)
* For 512 and 1024 rows a product from 2048 to 512 columns in bfloat16 takes 0.6 to 0.7 of its time in two halves:
  oneDNN shares the whole out badly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from dynamoe.dispatch import SHORTEST_BATCH
from dynamoe.trial import least_seconds

# Rows of the trials: an expert's share of a batch of inference, of training, and of a long one.
_TRIAL_ROWS = (16, 256, 2048)
# Where halves of the columns took 0.6 to 0.75 of the whole's time; the same or more below and above.
_HALVED_ROWS = range(384, 1537)
# Floating point operations of one trial: a few hundredths of a second.
_TRIAL_OPERATIONS = 2e9
# Trials of wider layers are made with these widths: what is faster for them is so for more, and a trial stays short.
_MOST_D_MODEL, _MOST_D_FF = 1024, 2048
# oneDNN must be clearly ahead: it allocates what it returns, which a trial hardly sees.
_CLEARLY_FASTER = 0.97
_ALL_ROWS = 2**31


@dataclass(frozen=True)
class Products:
    """How an expert's products are computed."""

    onednn_rows: int = 0
    """In the forward pass: up to so many rows by oneDNN's linear operator, more by torch.mm. In bfloat16, where that
    is oneDNN too, only with a relu, which the operator includes."""
    onednn_rows_backward: int = 0
    """The same in the backward pass, where weights are read along their other side."""
    batched: bool = False
    """Neighbouring experts with few rows get equally many places (`dispatch.padded`) and run as one batch of torch.bmm;
    a wide weight's gradient does so alone too."""
    halved: bool = False
    """A product with fewer columns than it sums over is computed in two halves of its columns, where rows are some
    hundreds."""


@lru_cache(maxsize=64)
def fastest_products(d_model: int, d_ff: int, dtype: torch.dtype) -> Products:
    """Measured once per process, width and type, in about a quarter of a second."""
    if not onednn_multiplies(dtype):
        return Products()
    d_model, d_ff = min(d_model, _MOST_D_MODEL), min(d_ff, _MOST_D_FF)
    if dtype is torch.bfloat16:
        batched, halved = _batched_is_faster(d_model, d_ff, dtype), _halved_is_faster(d_model, d_ff, dtype)
        return Products(onednn_rows=_ALL_ROWS, batched=batched, halved=halved)
    forward, backward = (_onednn_rows(d_model, d_ff, dtype, backward=backward) for backward in (False, True))
    return Products(onednn_rows=forward, onednn_rows_backward=backward)


def can_group(dtype: torch.dtype, *widths: int) -> bool:
    """Whether torch.nn.functional.grouped_mm takes matrices of these widths: rows of whole 16 bytes."""
    return dtype in (torch.float32, torch.bfloat16) and all(width * dtype.itemsize % 16 == 0 for width in widths)


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's linear operator for this type on this machine."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - as torch's own compiler asks


def onednn_linear(x: Tensor, weight: Tensor, *, relu: bool) -> Tensor:
    """[c, o], a new tensor, from [c, i] and [o, i]; the weight may be strided or rearranged."""
    linear = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - torch's compiler emits it; there is no public name
    return linear(x, weight, None, "relu" if relu else "none", [], "")  # type: ignore[no-any-return]


def multiply(
    x: Tensor, weight: Tensor, out: Tensor, products: Products, *, relu: bool = False, backward: bool = False
) -> Tensor:
    """`x @ weight`, [c, i] and [i, o] to [c, o]; with relu where asked. The result may or may not be `out`."""
    most = products.onednn_rows_backward if backward else products.onednn_rows
    if len(x) <= most and (relu or x.dtype is torch.float32):
        return onednn_linear(x, weight.t(), relu=relu)
    if products.halved and len(x) in _HALVED_ROWS and weight.shape[1] < weight.shape[0]:
        half = weight.shape[1] // 2
        torch.mm(x, weight[:, :half], out=out[:, :half])
        torch.mm(x, weight[:, half:], out=out[:, half:])
    else:
        torch.mm(x, weight, out=out)
    return out.relu_() if relu else out


def weight_gradient(towards: Tensor, rows: Tensor, out: Tensor, *, batched: bool) -> None:
    """`towards.T @ rows`, [c, o] and [c, i] into `out` [o, i]."""
    if batched:
        torch.bmm(towards.t().unsqueeze(0), rows.unsqueeze(0), out=out.unsqueeze(0))
    else:
        torch.mm(towards.t(), rows, out=out)


def _onednn_rows(d_model: int, d_ff: int, dtype: torch.dtype, *, backward: bool) -> int:
    weight = _filled(d_model, d_ff, dtype) if backward else _filled(d_ff, d_model, dtype).t()
    ahead = [rows for rows in _TRIAL_ROWS if _onednn_is_faster(rows, weight, backward=backward)]
    # Twice as many rows as the trial's: halfway to the next, on the scale of the trials.
    return _ALL_ROWS if len(ahead) == len(_TRIAL_ROWS) else 2 * max(ahead, default=0)


def _onednn_is_faster(rows: int, weight: Tensor, *, backward: bool) -> bool:
    x, out = (_filled(rows, width, weight.dtype) for width in weight.shape)
    onednn, relu = Products(onednn_rows=rows, onednn_rows_backward=rows), not backward
    return _faster(
        lambda: multiply(x, weight, out, onednn, relu=relu, backward=backward),
        lambda: multiply(x, weight, out, Products(), relu=relu),
        operations=2 * rows * weight.numel(),
    )


def _halved_is_faster(d_model: int, d_ff: int, dtype: torch.dtype) -> bool:
    rows = _HALVED_ROWS[len(_HALVED_ROWS) // 4]
    hidden, weight, out = _filled(rows, d_ff, dtype), _filled(d_model, d_ff, dtype).t(), _filled(rows, d_model, dtype)
    return _faster(
        lambda: multiply(hidden, weight, out, Products(halved=True)),
        lambda: multiply(hidden, weight, out, Products()),
        operations=2 * rows * d_model * d_ff,
    )


def _batched_is_faster(d_model: int, d_ff: int, dtype: torch.dtype) -> bool:
    rows, experts = _TRIAL_ROWS[0], SHORTEST_BATCH
    x, weights, out = (
        _filled(experts * first, second, dtype).view(experts, first, second)
        for first, second in ((rows, d_model), (d_model, d_ff), (rows, d_ff))
    )

    def one_by_one() -> None:
        for expert in range(experts):
            torch.mm(x[expert], weights[expert], out=out[expert])

    return _faster(lambda: torch.bmm(x, weights, out=out), one_by_one, operations=2 * experts * rows * d_model * d_ff)


def _filled(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    # No random numbers: the layer's weights come from the same generator, and must not depend on whether this has run.
    return torch.full((rows, columns), 0.5, dtype=dtype)


def _faster(challenger: Callable[[], object], champion: Callable[[], object], *, operations: int) -> bool:
    # At least one to warm up and three to measure.
    rounds = max(4, min(20, round(_TRIAL_OPERATIONS / operations)))
    seconds = least_seconds((challenger, champion), rounds=rounds)
    return seconds[0] < _CLEARLY_FASTER * seconds[1]
