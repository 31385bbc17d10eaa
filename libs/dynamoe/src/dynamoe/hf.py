"""Conversion of transformers' sparse blocks: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE and what is built like them.

Only attributes are read, so transformers is no dependency: a block has `gate` (a router with `weight` [n, d] and
`top_k`) and `experts` with `gate_up_proj` [n, 2f, d] and `down_proj` [n, d, f]; Qwen2-MoE adds a shared expert.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dynamoe.errors import SettingError
from dynamoe.experts import FfnExperts
from dynamoe.kernels import Activation
from dynamoe.moe import MoE
from dynamoe.routing import Mixing

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "siluactivation": Activation.SILU,
    "gelu": Activation.GELU,
    "geluactivation": Activation.GELU,
    "relu": Activation.RELU,
}


class SharedExpertMoE(nn.Module):
    """A layer beside an expert that every token goes through, with a gate of its own (Qwen2-MoE)."""

    def __init__(self, moe: MoE, shared: nn.Module, shared_gate: nn.Module) -> None:
        super().__init__()
        self.moe, self.shared, self.shared_gate = moe, shared, shared_gate

    def forward(self, x: Tensor) -> Tensor:
        return self.moe(x) + torch.sigmoid(self.shared_gate(x)) * self.shared(x)  # type: ignore[no-any-return]


def from_hf(block: Any, **settings: Any) -> nn.Module:
    """The same computation as `block`, on the same weights; `settings` go to `MoE`.

    The weights are shared with the block, not copied. Returns a `MoE`, or a `SharedExpertMoE` around one. Raises
    SettingError for a block of another make.
    """
    experts: Any = getattr(block, "experts", None)
    gate: Any = getattr(block, "gate", None)
    up, down = getattr(experts, "gate_up_proj", None), getattr(experts, "down_proj", None)
    if not (isinstance(up, Tensor) and isinstance(down, Tensor) and hasattr(gate, "weight") and hasattr(gate, "top_k")):
        raise SettingError(
            f"{type(block).__name__} is not built like Mixtral's block: experts.gate_up_proj, experts.down_proj, "
            "gate.weight and gate.top_k are needed"
        )
    if getattr(experts, "is_transposed", False) or getattr(experts, "has_bias", False):
        raise SettingError(f"{type(block).__name__} has biases or transposed weights, which are not converted")
    if getattr(gate, "bias", None) is not None or getattr(gate, "e_score_correction_bias", None) is not None:
        raise SettingError(f"{type(block).__name__}'s router has a bias, which is not converted")
    n, d_model, d_ff = down.shape
    ours = FfnExperts(n, d_model, d_ff, activation=_activation(experts), gated=True, dtype=up.dtype, device="meta")
    ours.up, ours.down = experts.gate_up_proj, experts.down_proj
    linear = nn.Linear(d_model, n, bias=False, device="meta")
    linear.weight = gate.weight
    normalized = getattr(gate, "norm_topk_prob", True)
    moe = MoE(
        ours, int(gate.top_k), gate=linear, mixing=Mixing.NORMALIZED if normalized else Mixing.PROBABILITY, **settings
    )
    moe.train(bool(block.training))
    if not hasattr(block, "shared_expert"):
        return moe
    return SharedExpertMoE(moe, block.shared_expert, block.shared_expert_gate)


def _activation(experts: Any) -> Activation:
    name = getattr(experts.act_fn, "__name__", type(experts.act_fn).__name__).lower()
    if name not in _ACTIVATIONS:
        raise SettingError(f"the activation {name} is not among {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[name]
