"""transformers' own blocks give the same outputs and gradients after conversion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from dynamoe import MoE, SettingError
from torch import nn


def _block(kind: str) -> Any:
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    sizes = {"hidden_size": 16, "num_experts_per_tok": 2}
    made: dict[str, Any] = {
        "mixtral": lambda: MixtralSparseMoeBlock(
            transformers.MixtralConfig(num_local_experts=4, intermediate_size=32, **sizes)
        ),
        "olmoe": lambda: OlmoeSparseMoeBlock(transformers.OlmoeConfig(num_experts=4, intermediate_size=32, **sizes)),
        "qwen2": lambda: Qwen2MoeSparseMoeBlock(
            transformers.Qwen2MoeConfig(
                num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=24, **sizes
            )
        ),
        "qwen3": lambda: Qwen3MoeSparseMoeBlock(
            transformers.Qwen3MoeConfig(num_experts=4, moe_intermediate_size=32, norm_topk_prob=True, **sizes)
        ),
    }
    block = made[kind]()
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    return block


@pytest.mark.parametrize("kind", ["mixtral", "olmoe", "qwen2", "qwen3"])
def test_a_converted_block_computes_the_same(kind: str) -> None:
    block = _block(kind)
    layer = MoE.from_hf(block)
    x = torch.randn(2, 7, 16, requires_grad=True)
    expected, actual = block(x), layer(x)
    assert torch.allclose(actual, expected, atol=1e-5)
    towards = torch.rand_like(expected)
    weights = [x, block.experts.gate_up_proj, block.experts.down_proj, block.gate.weight]
    for mine, theirs in zip(
        torch.autograd.grad(actual, weights, towards), torch.autograd.grad(expected, weights, towards), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_a_block_of_another_make_is_refused_in_words() -> None:
    with pytest.raises(SettingError, match="Linear is not built like Mixtral's block"):
        MoE.from_hf(nn.Linear(2, 2))
