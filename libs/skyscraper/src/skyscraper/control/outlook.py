"""The price of work now: from the joint plan's table, and the content that waits in the buffer.

What `simulate/run.py` prepares for a whole replay at once, for one moment of a live pool. A process knows the backlog
of its own streams only; what they need is scaled to the pool by its part of the cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.demand import Sample, demand, options
from skyscraper.control.lookahead import Table, foresee
from skyscraper.control.prices import PricePlan, worth_at

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PoolPrices:
    """The joint plan as decoders need it. Days are the content's, of `day_seconds`."""

    cores: float
    limit_seconds: float
    day_seconds: float
    slot_seconds: float
    segment_seconds: float
    usd_per_day: float
    price: PricePlan
    refused: frozenset[str] = frozenset()

    @property
    def slots(self) -> int:
        """Of a day."""
        return len(self.price.price)


@dataclass(frozen=True)
class Known:
    """Segments of one stream that are known: those in the buffer, and the last ones before. quality [T,K] as
    predicted, normalised; event_seconds [T]; work [K] core-seconds; burst_usd [K] dollars on burst machines,
    None where they may not be used."""

    quality: Floats
    event_seconds: Floats
    work: Floats
    burst_usd: Floats | None = None


@dataclass(frozen=True)
class Outlook:
    """λ [L] by lag, for the present content."""

    lags: Floats
    price: Floats
    level: int

    def at(self, lag_seconds: float) -> float:
        return float(worth_at(lag_seconds, self.lags, self.price))


def look(pool: PoolPrices, streams: Sequence[Known], *, clock_seconds: float, cores: float) -> Outlook:
    """Prices from the content's present, at `clock_seconds` (event time of the segment that is next), on.

    cores: the part of the pool whose streams are known here. Without any, the table's own.
    """
    plan = pool.price
    slots = pool.slots
    start = int(clock_seconds // pool.slot_seconds)
    base = start - start % slots
    table = Table(plan.grid, plan.lags, plan.price, plan.after, plan.edges)
    price = np.empty(len(plan.lags))
    samples = [
        Sample(
            one.quality,
            one.quality,
            (one.event_seconds // pool.slot_seconds).astype(np.int64) - base,
            options(one.work, one.burst_usd),
        )
        for one in streams
        if len(one.event_seconds)
    ]
    if not samples or cores <= 0:
        stop = start
        need = plan.last_need
        value = drift = np.empty((0, len(plan.grid)))
    else:
        scale = pool.cores / cores
        newest = max(int(sample.slots.max()) for sample in samples)
        # The newest slot is still being filled: it tells the level, and is not yet known as a whole.
        stop = max(base + newest, start)
        waiting = [_from(sample, start - base) for sample in samples]
        known = demand([one for one in waiting if len(one.slots)], newest + 1, plan.grid, plan.usd_price)
        per_slot = pool.slot_seconds / pool.segment_seconds
        value = known.value * scale
        drift = known.work * scale * per_slot / pool.cores - pool.slot_seconds
        need = scale * _newest_need(samples, plan, round(per_slot))
    foresee(table, value, drift, start - base, stop - base, need, price)
    level = int(np.searchsorted(plan.edges, need))
    return Outlook(plan.lags, price, level)


def _slots(one: Known, pool: PoolPrices) -> Integers:
    return np.asarray(one.event_seconds // pool.slot_seconds).astype(np.int64)


def _from(sample: Sample, first_slot: int) -> Sample:
    kept = sample.slots >= first_slot
    return Sample(sample.predicted[kept], sample.truth[kept], sample.slots[kept], sample.choice)


def _newest_need(samples: Sequence[Sample], plan: PricePlan, segments: int) -> float:
    """Of the newest slot's worth of segments of every stream."""
    newest = [
        replace(
            one,
            predicted=one.predicted[-segments:],
            truth=one.truth[-segments:],
            slots=np.zeros(min(segments, len(one.slots)), dtype=np.int64),
        )
        for one in samples
    ]
    return float(demand(newest, 1, plan.grid, plan.usd_price).need[0])
