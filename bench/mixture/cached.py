"""Target 5: what the cache of assignments saves where the gate is as deep as an expert, and what it costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from dynamoe import Activation, FfnExperts, MoE
from dynamoe.policies import assignment_cache
from torch import Tensor, nn

from mixture.contenders import D_FF, D_MODEL
from mixture.timing import interleaved, medians, ratio

_EXPERTS, _K = 8, 1
# The gate runs in every fourth step, and goes on training.
_GATE_EVERY = 4


def measure_cache(*, tokens: int, rounds: int, seeds: int, steps: int) -> dict[str, Any]:
    taken = _seconds(tokens=tokens, rounds=rounds)
    # The digits' matrices are too small to be shared out.
    torch.set_num_threads(1)
    pairs = [(_accuracy(seed, steps, cached=False), _accuracy(seed, steps, cached=True)) for seed in range(seeds)]
    gains = [cached[0] - plain[0] for plain, cached in pairs]
    return {
        "seconds": medians(taken),
        "speedup": ratio(taken, "gate_in_every_step", "cached"),
        "accuracy": {
            "plain": statistics.mean(plain[0] for plain, _ in pairs),
            "cached": statistics.mean(cached[0] for _, cached in pairs),
            "gain": statistics.mean(gains),
            "gain_standard_error": statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None,
            "runs_with_cache_on": sum(cached[1] for _, cached in pairs),
        },
    }


def _seconds(*, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Of so many training steps that the cached layer's gate runs in one of them."""
    torch.manual_seed(0)
    x, towards = torch.randn(tokens, D_MODEL), torch.randn(tokens, D_MODEL)
    ids = torch.arange(tokens)
    experts = FfnExperts(_EXPERTS, D_MODEL, D_FF, activation=Activation.RELU, gated=False)
    gate = nn.Sequential(nn.Linear(D_MODEL, D_FF), nn.ReLU(), nn.Linear(D_FF, _EXPERTS))

    def layer(*, cached: bool) -> MoE:
        made = MoE(experts, _K, gate=gate, cache_samples=tokens, gate_every=_GATE_EVERY)
        made.set_plan(made.plan.with_(cached=cached))
        return made

    def step(made: MoE) -> Callable[[], None]:
        def run() -> None:
            for _ in range(_GATE_EVERY):
                made(x, sample_ids=ids).backward(towards)
                made.zero_grad(set_to_none=True)

        return run

    layers = {"gate_in_every_step": layer(cached=False), "cached": layer(cached=True)}
    return interleaved({name: step(made) for name, made in layers.items()}, rounds=rounds)


def _accuracy(seed: int, steps: int, *, cached: bool) -> tuple[float, bool]:
    """On held-out digits, and whether the cache was on at the end."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images, train = images.float() / 16, 1500
    experts = [nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(_EXPERTS)]
    gate = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, _EXPERTS))
    policy = assignment_cache(gate_share=0.5) if cached else None
    layer = MoE(experts, 2, gate=gate, balance=0.05, cache_samples=train, gate_every=_GATE_EVERY, policy=policy)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    order: Tensor = torch.randperm(train)
    for step in range(steps):
        start = step * 60 % train
        rows = order[start : start + 60]
        loss = nn.functional.cross_entropy(layer(images[rows], sample_ids=rows), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        layer.step()
    layer.eval()
    with torch.no_grad():
        right = layer(images[train:]).argmax(dim=1) == labels[train:]
    return float(right.float().mean()), layer.plan.cached
