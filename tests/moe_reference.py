"""The semantics of the issue in twenty plain lines, row by row: what the library is compared with."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def kept(assign: list[list[int]], n: int, alpha: list[float] | None) -> dict[int, list[tuple[int, int]]]:
    """For every expert the (row, slot) pairs that it takes, in arrival order."""
    batch, k = len(assign), len(assign[0])
    limit = [math.inf] * n if alpha is None else [math.ceil(one * k / n * batch - 1e-6) for one in alpha]
    taken: dict[int, list[tuple[int, int]]] = {expert: [] for expert in range(n)}
    for row, slots in enumerate(assign):
        for slot, expert in enumerate(slots):
            if len(taken[expert]) < limit[expert]:
                taken[expert].append((row, slot))
    return taken


def aggregate(outputs: dict[tuple[int, int], Tensor], weights: Tensor, width: int) -> Tensor:
    """Row b's sum of weight times output over the slots that were taken."""
    out = [torch.zeros(width, dtype=weights.dtype) for _ in range(len(weights))]
    for (row, slot), value in outputs.items():
        out[row] = out[row] + weights[row, slot] * value
    return torch.stack(out)
