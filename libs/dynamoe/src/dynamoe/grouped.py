"""The fused FFN in plain torch operators with shapes that depend on nothing but the batch: CUDA, export and meta.

`torch.nn.functional.grouped_mm` takes the experts' places as a tensor, so that no count has to reach the host. What is
dropped is computed all the same and weighted with zero. The CUDA path was written and tested on a CPU and on meta
tensors; it was not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dynamoe.kernels import Activation, FfnShape

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.RELU: functional.relu,
    Activation.GELU: functional.gelu,
    Activation.SILU: functional.silu,
}


def grouped_ffn(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    up: Tensor,
    down: Tensor,
    shape: FfnShape,
    limits: Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """The weighted sum [T, d] and the counts [n], as `kernels.fused_ffn` on the same plan gives them."""
    k = experts.shape[1]
    flat = experts.reshape(-1)
    ordered, order = torch.sort(flat, stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(shape.experts, device=x.device), right=True)
    counts = torch.diff(bounds, prepend=bounds.new_zeros(1))
    scale = weights.reshape(-1)[order]
    if limits is not None:
        place = torch.arange(len(flat), device=x.device) - (bounds - counts)[ordered]
        scale = torch.where(place < torch.tensor(limits, device=x.device)[ordered], scale, 0)
    ends = bounds.to(torch.int32)
    first = functional.grouped_mm(x[order // k], up.transpose(-2, -1), offs=ends)
    act = _ACTIVATIONS[shape.activation]
    hidden = act(first[:, : shape.d_ff]) * first[:, shape.d_ff :] if shape.gated else act(first)
    outputs = functional.grouped_mm(hidden, down.transpose(-2, -1), offs=ends) * scale.unsqueeze(1).to(x.dtype)
    # Back to arrival order and summed by row: the same result whatever the device's order of execution.
    back = torch.empty_like(outputs).index_copy(0, order, outputs)
    return back.view(*experts.shape, shape.d_model).sum(dim=1), counts
