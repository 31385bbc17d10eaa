"""The mixture-of-experts library on a GPU: transformers' own blocks on `grouped_mm`, and the same blocks converted.

Whole blocks, router included, in bfloat16, at the sizes of three models that are in use. `compiled` is transformers'
block under `torch.compile`, `ours_compiled` the converted one; `dense` is a gated FFN of the same active FLOPs.
Contenders take turns within every round, and device events time them. `peak_mib` is what a step allocates above the
weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from dynamoe import MoE
from dynamoe.policies import local_capacity
from torch import Tensor, nn

TOKENS = (256, 4096, 16384)
_WARM_UP = 4


def blocks() -> dict[str, Callable[[], nn.Module]]:
    """Sparse blocks of transformers: 64 experts of 1024, 128 of 768, 8 of 14336."""
    from transformers import MixtralConfig, OlmoeConfig, Qwen3MoeConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    def made(config: Any, block: type[nn.Module]) -> Callable[[], nn.Module]:
        config._experts_implementation = "grouped_mm"  # noqa: SLF001 - transformers' own switch has no public name here

        def make() -> nn.Module:
            torch.manual_seed(0)
            with torch.device("cuda"):
                new = block(config)
            for parameter in new.parameters():
                nn.init.normal_(parameter, std=0.02)
            return new.bfloat16()

        return make

    qwen = Qwen3MoeConfig(
        hidden_size=2048, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True
    )
    return {
        "olmoe": made(OlmoeConfig(), OlmoeSparseMoeBlock),
        "qwen3-30b": made(qwen, Qwen3MoeSparseMoeBlock),
        "mixtral-8x7b": made(MixtralConfig(), MixtralSparseMoeBlock),
    }


def dense_of(block: Any) -> nn.Module:
    """A gated FFN as wide as the experts that a token sees."""
    _, d_model, d_ff = block.experts.down_proj.shape
    width = d_ff * int(block.gate.top_k)

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.device("cuda"):
                self.up = nn.Linear(d_model, 2 * width, bias=False, dtype=torch.bfloat16)
                self.down = nn.Linear(width, d_model, bias=False, dtype=torch.bfloat16)

        def forward(self, x: Tensor) -> Tensor:
            gate, value = self.up(x).chunk(2, dim=-1)
            return self.down(nn.functional.silu(gate) * value)  # type: ignore[no-any-return]

    return Dense()


def measure(tokens: int, make: Callable[[], nn.Module], *, training: bool, rounds: int) -> dict[str, Any]:
    block = make().train(training)
    ours = MoE.from_hf(block)
    assert isinstance(ours, MoE)
    following = MoE.from_hf(block, policy=local_capacity(steps=4))
    assert isinstance(following, MoE)
    width = following.gate.in_features
    x = torch.randn(1, tokens, int(width), device="cuda", dtype=torch.bfloat16)  # type: ignore[arg-type]
    towards = torch.randn_like(x)
    x.requires_grad_(training)

    def adaptive(rows: Tensor) -> Tensor:
        out: Tensor = following(rows)
        following.step()
        return out

    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "transformers": _first(block),
        "compiled": torch.compile(_first(block)),
        "ours": ours,
        "ours_compiled": torch.compile(ours),
        "ours_following_the_load": adaptive,
        "dense": dense_of(block),
    }
    with torch.no_grad():
        expected = layers["transformers"](x).float()
        error = float((ours(x).float() - expected).norm() / expected.norm())
    seconds, peaks = time_all(layers, x, towards if training else None, rounds=rounds)
    return {
        "milliseconds": {name: 1000 * value for name, value in seconds.items()},
        "peak_mib": {name: round(value / 2**20) for name, value in peaks.items()},
        "speedup": seconds["transformers"] / seconds["ours"],
        "speedup_over_compiled": seconds["compiled"] / seconds["ours"],
        "speedup_both_compiled": seconds["compiled"] / seconds["ours_compiled"],
        "ratio_dense": seconds["ours"] / seconds["dense"],
        "following_share": seconds["ours_following_the_load"] / seconds["ours"] - 1,
        "relative_error": error,
    }


def time_all(
    layers: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, towards: Tensor | None, *, rounds: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Median seconds of a step, and the most bytes that it allocates."""

    def step(layer: Callable[[Tensor], Tensor]) -> None:
        if towards is None:
            with torch.no_grad():
                layer(x)
            return
        layer(x).backward(towards)  # type: ignore[no-untyped-call]
        x.grad = None

    parameters = {name: list(layer.parameters()) for name, layer in layers.items() if isinstance(layer, nn.Module)}
    shared = parameters["ours"]
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    peaks: dict[str, int] = {}
    for turn in range(_WARM_UP + rounds):
        for name, layer in layers.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            step(layer)
            end.record()
            end.synchronize()
            if turn >= _WARM_UP:
                seconds[name].append(begin.elapsed_time(end) / 1000)
                peaks[name] = torch.cuda.max_memory_allocated() - before
            for parameter in parameters.get(name, shared):
                parameter.grad = None
    return {name: statistics.median(values) for name, values in seconds.items()}, peaks


def cells(*, quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    for name, make in blocks().items():
        for tokens in TOKENS[:2] if quick else TOKENS:
            for training in (False, True):
                torch.compiler.reset()
                told = measure(tokens, make, training=training, rounds=rounds)
                yield {"block": name, "tokens": tokens, "training": training} | told


def _first(block: nn.Module) -> Callable[[Tensor], Tensor]:
    """Some versions of transformers return the router's logits beside the output."""

    def forward(x: Tensor) -> Tensor:
        out = block(x)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]

    return forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU for CUDA; bench/moe.py runs on a CPU")
    found = []
    for cell in cells(quick=given.quick, rounds=10 if given.quick else 30):
        found.append(cell)
        print(json.dumps(cell), file=sys.stderr, flush=True)
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "speedup_hf_median": statistics.median(cell["speedup"] for cell in found),
        "speedup_hf_min": min(cell["speedup"] for cell in found),
        "speedup_compiled_median": statistics.median(cell["speedup_over_compiled"] for cell in found),
        "following_share_max": max(cell["following_share"] for cell in found),
        "cells": found,
    }
    print(json.dumps(report, indent=2 if given.json else None))


if __name__ == "__main__":
    main()
