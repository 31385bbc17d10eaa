"""The best that could have been done: ground truth and a knapsack over the whole time (paper section 5's Optimum)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.demand import Options

Floats = NDArray[np.float64]

_STEPS = 60


def optimum(quality: Floats, work: Floats, choice: Options, *, work_budget: float, usd_budget: float) -> float:
    """Upper bound of the sum of qualities: the linear relaxation of the knapsack, by its dual; no buffer limits it.

    quality, work [M,K] of all segments of all streams; budgets over all of them.
    """
    option_quality = quality[:, choice.configuration]
    option_work = np.where(choice.work > 0, work[:, choice.configuration], 0.0)

    def dual(price: float, mu: float) -> tuple[float, float, float]:
        scores = option_quality - price * option_work - mu * choice.usd
        picked = np.argmax(scores, axis=1)
        rows = np.arange(len(scores))
        bound = float(scores[rows, picked].sum() + price * work_budget + mu * usd_budget)
        return bound, float(option_work[rows, picked].sum()), float(choice.usd[picked].sum())

    def over_work(mu: float) -> tuple[float, float]:
        low, high = 0.0, 1.0
        best, used, usd = dual(0.0, mu)
        if used <= work_budget:
            return best, usd
        while dual(high, mu)[1] > work_budget and high < 1e12:
            high *= 2
        for _ in range(_STEPS):
            middle = (low + high) / 2
            value, used, usd = dual(middle, mu)
            best = min(best, value)
            low, high = (middle, high) if used > work_budget else (low, middle)
        return best, usd

    best, usd = over_work(0.0)
    if usd <= usd_budget or not choice.usd.any():
        return best
    low, high = 0.0, 1.0
    while over_work(high)[1] > usd_budget and high < 1e12:
        high *= 2
    for _ in range(_STEPS // 2):
        middle = (low + high) / 2
        value, usd = over_work(middle)
        best = min(best, value)
        low, high = (middle, high) if usd > usd_budget else (low, middle)
    return best
