"""Targets 1 and 4: time against one-hot dispatch, transformers' grouped_mm and a dense FFN, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from dynamoe import Precision

from mixture.contenders import (
    GROUP_TOKENS,
    Case,
    Problem,
    dense,
    dropped,
    one_hot,
    ours,
    problem,
    transformers_grouped,
)
from mixture.timing import compare, medians, ratio

# Slots of the one-hot contenders and of this library in the same comparison.
ONE_HOT_ALPHA = 1.25
ONE_HOT_CELLS = [
    Case(experts, k, 4096, dtype, "uniform", True)
    for experts, k, dtype in product((8, 32, 64), (1, 2), ("fp32", "bf16"))
]
GRID_CELLS = [
    Case(experts, k, tokens, dtype, routing, training)
    for training, tokens, experts, k, routing, dtype in product(
        (False, True), (512, 4096, 16384), (8, 32, 64), (1, 2), ("uniform", "zipf"), ("fp32", "bf16")
    )
]
QUICK_ONE_HOT = [Case(32, 2, 4096, "fp32", "uniform", True), Case(64, 1, 4096, "bf16", "uniform", True)]
QUICK_GRID = [
    Case(32, 2, 4096, "fp32", "zipf", True),
    Case(64, 1, 4096, "bf16", "zipf", True),
    Case(32, 2, 512, "fp32", "zipf", True),
    Case(32, 2, 512, "bf16", "uniform", True),
    Case(32, 2, 4096, "bf16", "zipf", False),
    Case(64, 1, 512, "fp32", "zipf", False),
]


def measure_one_hot(cases: list[Case], *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    for case in cases:
        made = problem(case)
        layers = {
            "ours": ours(made, alpha=ONE_HOT_ALPHA),
            "grouped": one_hot(made, ONE_HOT_ALPHA, GROUP_TOKENS),
            "flat": one_hot(made, ONE_HOT_ALPHA, None),
        }
        taken = compare(made, layers, rounds=rounds, seconds=seconds)
        yield {
            "cell": case.name,
            "seconds": medians(taken),
            "dropped": {
                "ours": dropped(made, ONE_HOT_ALPHA),
                "grouped": dropped(made, ONE_HOT_ALPHA, GROUP_TOKENS),
                "flat": dropped(made, ONE_HOT_ALPHA),
            },
            "speedup": min(ratio(taken, "grouped", "ours"), ratio(taken, "flat", "ours")),
        }


def measure_grid(cases: list[Case], *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Nothing is dropped by anyone here. In forward cells this library runs from rearranged weights (a second copy)."""
    for case in cases:
        made = problem(case)
        layers = {"dense": dense(made), "transformers": transformers_grouped(made), "ours": _ours(made)}
        taken = compare(made, layers, rounds=rounds, seconds=seconds)
        yield {
            "cell": case.name,
            "rounds": len(taken["ours"]),
            "seconds": medians(taken),
            "ratio_transformers": ratio(taken, "ours", "transformers"),
            "ratio_dense": ratio(taken, "ours", "dense"),
        }


def _ours(made: Problem) -> Any:
    return ours(made) if made.case.training else ours(made, precision=Precision.PACKED)
