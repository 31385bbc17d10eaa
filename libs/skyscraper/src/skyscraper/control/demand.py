"""What content would yield and cost at every price of work: the planner's view of past and future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """What may be done with a segment: configurations on the pool, then (optionally) the same on burst machines.

    work [O] core-seconds of the pool, usd [O], configuration [O].
    """

    work: Floats
    usd: Floats
    configuration: Integers

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
class Sample:
    """Segments of one stream: q̂ and q [T,K], the slot of each [T] (counted from a midnight on), and its options."""

    predicted: Floats
    truth: Floats
    slots: Integers
    choice: Options


@dataclass(frozen=True)
class Demand:
    """Mean value, pool work and dollars per round (one segment of every stream), by slot and price of work. [S,P]."""

    value: Floats
    work: Floats
    usd: Floats

    @property
    def need(self) -> Floats:
        """[S] how much work the content is worth: its mean over all prices. One number to tell calm from rush by."""
        return np.asarray(self.work.mean(axis=1))


def price_grid(samples: Sequence[Sample], *, rows: int = 2000, count: int = 48) -> Floats:
    """Prices (quality per core-second) from 0 to where only the cheapest is ever taken: the quantiles of all gains.

    Streams may have different options. Of every stream at least one segment is looked at, of all about `rows`.
    """
    gains = [_gains(sample, max(1, rows // len(samples))) for sample in samples]
    positive = np.concatenate([gain[gain > 0] for gain in gains])
    if positive.size == 0:
        return np.array([0.0, 1.0])
    inner = np.quantile(positive, np.linspace(0.002, 1.0, count - 1))
    return np.unique(np.concatenate([[0.0], inner, [inner[-1] * 1.01]]))


def _gains(sample: Sample, rows: int) -> Floats:
    """Quality gained for every core-second by each step from a pool option to a dearer one, over some segments."""
    pool = sample.choice.work > 0
    work, configuration = sample.choice.work[pool], sample.choice.configuration[pool]
    quality = sample.truth[:: max(1, len(sample.truth) // rows)][:, configuration]
    found = [
        (quality[:, high] - quality[:, low]) / (work[high] - work[low])
        for high in range(1, len(work))
        for low in range(high)
        if work[high] > work[low]
    ]
    return np.concatenate(found) if found else np.empty(0)


def demand(samples: Sequence[Sample], slot_count: int, prices: Floats, mu: float) -> Demand:
    """What choosing `argmax q̂ − λ·work − μ·usd` does to the samples' segments, summed over streams.

    A slot's segments may come from some of the streams only: the mean of every stream over all slots is exact, and
    the slot adds what its segments deviate from their own streams' means. A slot with no segment gets the means.
    """
    means = np.zeros((3, len(prices)))
    away = np.zeros((3, slot_count, len(prices)))
    counts = np.zeros(slot_count)
    for sample in samples:
        sums = np.zeros((3, slot_count, len(prices)))
        choice = sample.choice
        _add(
            sample.predicted,
            sample.truth,
            sample.slots,
            choice.configuration,
            choice.work,
            choice.usd,
            prices,
            mu,
            sums,
        )
        sums = np.cumsum(sums, axis=2)
        mine = np.bincount(sample.slots, minlength=slot_count).astype(np.float64)
        mean = sums.sum(axis=1) / max(len(sample.slots), 1)
        means += mean
        away += sums - mean[:, None, :] * mine[:, None]
        counts += mine
    tables = means[:, None, :] + len(samples) * away / np.maximum(counts, 1)[:, None]
    return Demand(tables[0], tables[1], tables[2])


@njit(cache=True)
def _add(  # pragma: no cover - compiled
    predicted: Floats,
    truth: Floats,
    slots: Integers,
    configuration: Integers,
    work: Floats,
    usd: Floats,
    prices: Floats,
    mu: float,
    sums: Floats,
) -> None:
    """Adds value, work and dollars to sums [3,S,P] as differences along P.

    As the price rises, a segment steps down its own hull of options: few steps, however many prices there are.
    """
    for t in range(predicted.shape[0]):
        slot = slots[t]
        best, arg = -1e300, 0
        for option in range(work.shape[0]):
            score = predicted[t, configuration[option]] - prices[0] * work[option] - mu * usd[option]
            if score > best or (score == best and work[option] < work[arg]):
                best, arg = score, option
        sums[0, slot, 0] += truth[t, configuration[arg]]
        sums[1, slot, 0] += work[arg]
        sums[2, slot, 0] += usd[arg]
        while True:
            base = predicted[t, configuration[arg]] - mu * usd[arg]
            step, at = -1, 1e300
            for option in range(work.shape[0]):
                saved = work[arg] - work[option]
                if saved > 0:
                    cross = (base - predicted[t, configuration[option]] + mu * usd[option]) / saved
                    if cross < at or (cross == at and work[option] < work[step]):
                        step, at = option, cross
            if step < 0:
                break
            index = np.searchsorted(prices, at)
            if index >= prices.shape[0]:
                break
            sums[0, slot, index] += truth[t, configuration[step]] - truth[t, configuration[arg]]
            sums[1, slot, index] += work[step] - work[arg]
            sums[2, slot, index] += usd[step] - usd[arg]
            arg = step
