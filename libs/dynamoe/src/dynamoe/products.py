"""Which library multiplies an expert's rows with its weights: measured once per process and width, then kept in a plan.

No library is the fastest everywhere. Measured on two cores of an Intel Xeon with AMX (weights of 512 x 2048, not in
cache): in single precision oneDNN against torch.mm (MKL) takes 0.64 of the time for 16 rows, 0.9 for 256 and 1.1 for
2048; on an AMD EPYC 0.86 to 0.9 for all. In bfloat16 torch.mm is oneDNN, without a fresh result; but for the gradient
of a wide weight from few rows torch.bmm takes 0.6 of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Rows of the trials: an expert's share of a batch of inference, of training, and of a long one.
_TRIAL_ROWS = (16, 256, 2048)
# Floating point operations of one trial: a few hundredths of a second.
_TRIAL_OPERATIONS = 2e9
# oneDNN must be clearly ahead: it allocates what it returns, which a trial hardly sees.
_CLEARLY_FASTER = 0.97
ALL_ROWS = 2**31


@dataclass(frozen=True)
class Products:
    """How an expert's products are computed."""

    onednn_rows: int = 0
    """Up to so many rows by oneDNN's linear operator, more by torch.mm."""
    batched: bool = False
    """Neighbouring experts with few rows get equally many places (`dispatch.padded`) and run as one batch of torch.bmm;
    a wide weight's gradient does so alone too."""


@lru_cache(maxsize=64)
def fastest_products(d_model: int, d_ff: int, dtype: torch.dtype) -> Products:
    """Measured once per process, width and type, in about a quarter of a second."""
    if dtype is torch.float32 and onednn_multiplies(dtype):
        ahead = [rows for rows in _TRIAL_ROWS if _onednn_is_faster(rows, d_model, d_ff, dtype)]
        if ahead == list(_TRIAL_ROWS):
            return Products(onednn_rows=ALL_ROWS)
        # Twice as many rows as the trial's: halfway to the next, on the scale of the trials.
        return Products(onednn_rows=2 * max(ahead, default=0))
    if dtype is torch.bfloat16 and onednn_multiplies(dtype):
        return Products(batched=_batched_is_faster(d_model, d_ff, dtype))
    return Products()


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


def multiply(x: Tensor, weight: Tensor, out: Tensor, products: Products, *, relu: bool) -> Tensor:
    """`x @ weight`, [c, i] and [i, o] to [c, o]; with relu where asked. The result may or may not be `out`."""
    if len(x) <= products.onednn_rows:
        return onednn_linear(x, weight.t(), relu=relu)
    torch.mm(x, weight, out=out)
    return out.relu_() if relu else out


def weight_gradient(towards: Tensor, rows: Tensor, out: Tensor, *, batched: bool) -> None:
    """`towards.T @ rows`, [c, o] and [c, i] into `out` [o, i]."""
    if batched:
        torch.bmm(towards.t().unsqueeze(0), rows.unsqueeze(0), out=out.unsqueeze(0))
    else:
        torch.mm(towards.t(), rows, out=out)


def _onednn_is_faster(rows: int, d_model: int, d_ff: int, dtype: torch.dtype) -> bool:
    x, weight, out = _filled(rows, d_model, dtype), _filled(d_ff, d_model, dtype).t(), _filled(rows, d_ff, dtype)
    return _faster(
        lambda: multiply(x, weight, out, Products(onednn_rows=rows), relu=True),
        lambda: multiply(x, weight, out, Products(), relu=True),
        operations=2 * rows * d_model * d_ff,
    )


def _batched_is_faster(d_model: int, d_ff: int, dtype: torch.dtype) -> bool:
    rows = _TRIAL_ROWS[0]
    towards, hidden, out = _filled(rows, d_model, dtype), _filled(rows, d_ff, dtype), _filled(d_model, d_ff, dtype)
    return _faster(
        lambda: weight_gradient(towards, hidden, out, batched=True),
        lambda: weight_gradient(towards, hidden, out, batched=False),
        operations=2 * rows * d_model * d_ff,
    )


def _filled(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    # No random numbers: the layer's weights come from the same generator, and must not depend on whether this has run.
    return torch.full((rows, columns), 0.5, dtype=dtype)


def _faster(challenger: Callable[[], object], champion: Callable[[], object], *, operations: int) -> bool:
    seconds: tuple[list[float], list[float]] = ([], [])
    # At least one to warm up and three to measure.
    for _ in range(max(4, min(20, round(_TRIAL_OPERATIONS / operations)))):
        for run, taken in zip((challenger, champion), seconds, strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return min(seconds[0]) < _CLEARLY_FASTER * min(seconds[1])
