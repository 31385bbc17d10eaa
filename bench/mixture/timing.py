"""Interleaved timing: every contender once per round, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from mixture.contenders import Layer, Problem

# glibc keeps freed memory instead of giving it back: what the training notes of several projects recommend.
TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024**3),
    "MALLOC_TOP_PAD_": str(256 * 1024**2),
}


def clock() -> Callable[[], float]:
    """Wall time, or with MOE_BENCH_CLOCK=cpu the process's own CPU time: meaningful on a shared machine, one thread."""
    return time.process_time if os.environ.get("MOE_BENCH_CLOCK") == "cpu" else time.perf_counter


def run_once(made: Problem, layer: Layer) -> None:
    """One forward pass, and in training a backward pass whose gradients are then thrown away."""
    if not made.case.training:
        with torch.no_grad():
            layer()
        return
    layer().backward(made.towards)
    for leaf in made.leaves:
        leaf.grad = None


def interleaved(
    steps: Mapping[str, Callable[[], None]], *, rounds: int, seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each step in every round: at least so many rounds, and until so many seconds have passed.

    The first round warms up and does not count.
    """
    now = clock()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    begun = time.perf_counter()
    while len(next(iter(taken.values()))) <= rounds or time.perf_counter() < begun + seconds:
        for name, step in steps.items():
            started = now()
            step()
            taken[name].append(now() - started)
    return {name: values[1:] for name, values in taken.items()}


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in taken.items()}


def ratio(taken: Mapping[str, list[float]], name: str, other: str) -> float:
    """Of one step's time to another's: the median over rounds, so that a slow minute counts for both."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[other], strict=True))


def compare(made: Problem, layers: Mapping[str, Layer], *, rounds: int, seconds: float = 0.0) -> dict[str, list[float]]:
    def step(layer: Layer) -> Callable[[], None]:
        return lambda: run_once(made, layer)

    return interleaved({name: step(layer) for name, layer in layers.items()}, rounds=rounds, seconds=seconds)
