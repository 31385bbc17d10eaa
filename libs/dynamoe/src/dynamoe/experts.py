"""The experts: the library's fused FFN, or any modules."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dynamoe.errors import SettingError
from dynamoe.kernels import Activation, ExpertGradient, FfnShape


class FfnExperts(nn.Module):
    """n feed-forward networks with stacked weights: `down(act(up(x)))`, gated `down(act(gate(x)) * up(x))`, no biases.

    `up` is [n, f, d], gated [n, 2f, d] with the gate's rows first; `down` is [n, d, f]: transformers' layout.
    """

    def __init__(
        self,
        n: int,
        d_model: int,
        d_ff: int,
        *,
        activation: Activation = Activation.SILU,
        gated: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.shape = FfnShape(n, d_model, d_ff, Activation(activation), gated)
        self.up = nn.Parameter(torch.empty(n, self.shape.up_rows, d_model, dtype=dtype, device=device))
        self.down = nn.Parameter(torch.empty(n, d_model, d_ff, dtype=dtype, device=device))
        self.on_gradient: ExpertGradient | None = None
        """Set by an optimizer that steps inside the backward pass (`dynamoe.fused_optimizer`)."""
        self.reset_parameters()

    def __len__(self) -> int:
        return self.shape.experts

    def reset_parameters(self) -> None:
        """As nn.Linear: uniform within 1 / sqrt(inputs)."""
        for weight in (self.up, self.down):
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        shape = self.shape
        kind = f"gated {shape.activation}" if shape.gated else str(shape.activation)
        return f"{shape.experts} experts, {shape.d_model} -> {shape.d_ff} -> {shape.d_model}, {kind}"


class ModuleExperts(nn.Module):
    """Any modules as experts, each [c, ...] -> [c, ...]; all must return rows of one shape."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)
        if not self.members:
            raise SettingError("experts: at least one is needed")

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, grouped: Tensor, places: tuple[int, ...]) -> Tensor:
        """[R, ...]: each expert's rows through it, in the same order. An expert without rows is not run."""
        parts = [
            member(rows) for member, rows in zip(self.members, grouped.split(list(places)), strict=True) if len(rows)
        ]
        # A batch whose every assignment was dropped still has a shape: one row through one expert, taken away again.
        return torch.cat(parts) if parts else self.members[0](grouped.new_zeros(1, *grouped.shape[1:]))[:0]
