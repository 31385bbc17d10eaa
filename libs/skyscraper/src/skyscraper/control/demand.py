"""What the content of a time of day would yield and cost at every price of work: the planner's view of the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What may be done with a segment: configurations on the pool, then (optionally) the same on burst machines.

    work [O] core-seconds of the pool, usd [O], configuration [O].
    """

    work: Floats
    usd: Floats
    configuration: NDArray[np.int64]

    @property
    def count(self) -> int:
        return len(self.work)


def options(work: Floats, burst_usd: Floats | None) -> Options:
    """All placements of K configurations: K on the pool, and K more where burst machines have a price."""
    count = len(work)
    index = np.arange(count, dtype=np.int64)
    if burst_usd is None:
        return Options(work.copy(), np.zeros(count), index)
    return Options(
        np.concatenate([work, np.zeros(count)]),
        np.concatenate([np.zeros(count), burst_usd]),
        np.concatenate([index, index]),
    )


@dataclass(frozen=True)
class Demand:
    """Mean value, pool work and dollars per segment, by slot of the day and price of work. All [S,P]."""

    prices: Floats
    value: Floats
    work: Floats
    usd: Floats


def price_grid(quality: Floats, choice: Options, count: int = 64) -> Floats:
    """Prices (quality per core-second) from 0 to where only the cheapest is ever taken: the quantiles of all gains."""
    pool = choice.work > 0
    work = choice.work[pool]
    rows = quality[:: max(1, len(quality) // 2000), : len(work)]
    gains = []
    for high in range(1, len(work)):
        for low in range(high):
            step = work[high] - work[low]
            if step > 0:
                gains.append((rows[:, high] - rows[:, low]) / step)
    positive = np.concatenate([gain[gain > 0] for gain in gains]) if gains else np.empty(0)
    if positive.size == 0:
        return np.array([0.0, 1.0])
    inner = np.quantile(positive, np.linspace(0.002, 1.0, count - 1))
    return np.unique(np.concatenate([[0.0], inner, [inner[-1] * 1.01]]))


def demand(
    predicted: Floats,
    truth: Floats,
    slots: NDArray[np.int64],
    slot_count: int,
    choice: Options,
    prices: Floats,
    mu: float,
) -> Demand:
    """What choosing `argmax predicted − λ·work − μ·usd` would have done to past segments.

    predicted, truth [T,K]; slots [T] slot of the day of each. A slot with no segment gets the mean of all.
    """
    sums = np.zeros((3, slot_count, len(prices)))
    counts = np.bincount(slots, minlength=slot_count).astype(np.float64)[:, None]
    _add(predicted, truth, slots, choice.configuration, choice.work, choice.usd, prices, mu, sums)
    mean = sums.sum(axis=1, keepdims=True) / max(len(slots), 1)
    tables = np.where(counts > 0, sums / np.maximum(counts, 1), mean)
    return Demand(prices, tables[0], tables[1], tables[2])


def total(parts: Sequence[Demand]) -> Demand:
    """Of several streams, per round: one segment of each."""
    return Demand(
        parts[0].prices,
        np.sum([part.value for part in parts], axis=0),
        np.sum([part.work for part in parts], axis=0),
        np.sum([part.usd for part in parts], axis=0),
    )


@njit(cache=True)
def _add(  # pragma: no cover - compiled
    predicted: Floats,
    truth: Floats,
    slots: NDArray[np.int64],
    configuration: NDArray[np.int64],
    work: Floats,
    usd: Floats,
    prices: Floats,
    mu: float,
    sums: Floats,
) -> None:
    for t in range(predicted.shape[0]):
        slot = slots[t]
        for p in range(prices.shape[0]):
            best, arg = -1e300, 0
            for option in range(work.shape[0]):
                score = predicted[t, configuration[option]] - prices[p] * work[option] - mu * usd[option]
                if score > best:
                    best, arg = score, option
            sums[0, slot, p] += truth[t, configuration[arg]]
            sums[1, slot, p] += work[arg]
            sums[2, slot, p] += usd[arg]
