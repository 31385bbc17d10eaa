"""The paper's knob switcher (section 4.2, equations 5 and 6, algorithm 1). Bounded loops, no state of its own."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True)
def category(centres: Floats, reported_quality: float, configuration: int) -> int:  # pragma: no cover - compiled
    """argmin_c |q_ck − reported| (equation 5): the category of the last segment, taken to be that of the next."""
    best, arg = 1e300, 0
    for index in range(centres.shape[0]):
        distance = abs(centres[index, configuration] - reported_quality)
        if distance < best:
            best, arg = distance, index
    return arg


@njit(cache=True)
def pick(alpha: Floats, used: Floats) -> int:  # pragma: no cover - compiled
    """argmax(α − α̂) (equation 6): the option furthest behind its plan. alpha, used [O] of the category; used counts."""
    total = used.sum()
    best, arg = -1e300, 0
    for option in range(alpha.shape[0]):
        behind = alpha[option] - (used[option] / total if total > 0 else 0.0)
        if alpha[option] > 0 and behind > best:
            best, arg = behind, option
    return arg


@njit(cache=True)
def fall_back(  # pragma: no cover - compiled
    option: int, work: Floats, usd: Floats, value: Floats, slack: float, budget: float
) -> int:
    """The option if guard and budget allow it, else the next less qualitative that they do, at last the cheapest."""
    ceiling = value[option]
    best, arg = -1e300, 0
    for other in range(work.shape[0]):
        fits = work[other] <= slack and usd[other] <= budget
        if fits and other == option:
            return option
        if fits and value[other] <= ceiling and value[other] > best:
            best, arg = value[other], other
    return arg
