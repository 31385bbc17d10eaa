"""Shadow prices of work: a dynamic program over the time of day and the lag.

The state is (slot of the day, lag of the pool behind the cameras); the action is a price λ, at which every segment
takes `argmax q̂ − λ·work − μ·usd`. The value function's slope in the lag is what a core-second is worth: high before a
rush with a full buffer, low before a calm. Because the table holds every lag, backlog feeds back into the price by
itself, with no gain to tune. This replaces the paper's fixed plan α (equations 2 to 4), which knows no lag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.demand import Demand, Options, demand, price_grid, total
from skyscraper.control.units import SECONDS_PER_DAY

Floats = NDArray[np.float64]

# Segments looked at in a plan: 83 for every slot of a quarter of an hour, the noise of which is below the forecast's;
# at least so many of each stream, whose noise averages out over streams.
_ROWS = 8_000
_ROWS_PER_STREAM = 200
_GOLDEN = 0.6180339887498949
# 2^-10 of the bracket is finer than the spending forecast.
_BISECTIONS = 10
# Quality units per dollar beyond which nothing is ever bought.
_DEAREST_USD = 1e15
# A few days of value iteration reach the periodic solution: a lag's influence fades within two days at 6 h of buffer.
_DAYS = 3


@dataclass(frozen=True)
class PriceTable:
    """λ [S,L] by slot of the day and lag; lags [L] in seconds."""

    lags: Floats
    price: Floats

    def at(self, slot: int, lag_seconds: float) -> float:
        return float(np.interp(lag_seconds, self.lags, self.price[slot]))


def plan_prices(
    demand: Demand,
    *,
    cores: float,
    segments_per_second: float,
    slot_seconds: float,
    buffer_seconds: float,
    lag_levels: int = 96,
) -> PriceTable:
    """The price table for a pool of `cores` that serves `segments_per_second` (all streams) of this demand."""
    # Finer at small lags, where a short buffer lives.
    lags = buffer_seconds * np.linspace(0, 1, lag_levels) ** 1.5
    speed = segments_per_second / cores
    drift = demand.work * speed * slot_seconds - slot_seconds
    price = _solve(demand.prices, demand.value, drift, lags, _DAYS)
    return PriceTable(lags, price)


def expected_usd(
    table: PriceTable, demand: Demand, *, cores: float, segments_per_second: float, slot_seconds: float
) -> float:
    """Dollars per round (one segment of every stream) that a day under the table would take, from an empty buffer on.

    The first day only settles the lag.
    """
    slots = len(table.price)
    lag, spent = 0.0, 0.0
    for turn in range(2 * slots):
        slot = turn % slots
        price = table.at(slot, lag)
        work = np.interp(price, demand.prices, demand.work[slot])
        lag = min(max(lag + (work * segments_per_second / cores - 1) * slot_seconds, 0.0), float(table.lags[-1]))
        spent += float(np.interp(price, demand.prices, demand.usd[slot])) * (turn >= slots)
    return spent / slots


@dataclass(frozen=True)
class History:
    """Past segments of one stream: predicted and true quality [T,K], slot of the day [T], and its options."""

    predicted: Floats
    truth: Floats
    slots: NDArray[np.int64]
    choice: Options


@dataclass(frozen=True)
class PricePlan:
    """λ by slot and lag, and μ, the price of a dollar."""

    table: PriceTable
    usd_price: float


def plan_streams(
    histories: Sequence[History],
    *,
    cores: float,
    segment_seconds: float,
    slot_seconds: float,
    buffer_seconds: float,
    usd_per_round: float,
) -> PricePlan:
    """The joint price plan of streams that share a pool and a budget; a round is one segment of every stream.

    μ is the smallest price of a dollar at which the expected spending keeps the budget. Raises ValueError for none.
    """
    if not histories:
        raise ValueError("no stream to plan for")
    rows = max(_ROWS // len(histories), _ROWS_PER_STREAM)
    thinned = [_thin(history, rows) for history in histories]
    sample = max(1, rows // 4)
    grid = price_grid(np.concatenate([history.truth[:sample] for history in thinned]), histories[0].choice)
    slot_count = round(SECONDS_PER_DAY / slot_seconds)

    def solve(mu: float) -> tuple[PriceTable, float]:
        future = total(
            [
                demand(history.predicted, history.truth, history.slots, slot_count, history.choice, grid, mu)
                for history in thinned
            ]
        )
        table = plan_prices(
            future,
            cores=cores,
            segments_per_second=1 / segment_seconds,
            slot_seconds=slot_seconds,
            buffer_seconds=buffer_seconds,
        )
        spend = expected_usd(
            table, future, cores=cores, segments_per_second=1 / segment_seconds, slot_seconds=slot_seconds
        )
        return table, spend

    table, spend = solve(0.0)
    if spend <= usd_per_round:
        return PricePlan(table, 0.0)
    low, high = 0.0, 1.0
    while (found := solve(high))[1] > usd_per_round and high < _DEAREST_USD:
        low, high = high, high * 8
    table = found[0]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = solve(middle)
        if found[1] > usd_per_round:
            low = middle
        else:
            high, table = middle, found[0]
    return PricePlan(table, high)


def _thin(history: History, rows: int) -> History:
    """Every n-th segment in a shuffled order of its own, so that any prefix is a fair sample of the day."""
    picked = np.linspace(0, len(history.slots) - 1, min(rows, len(history.slots))).astype(np.int64)
    picked = picked[np.argsort((np.arange(len(picked)) * _GOLDEN) % 1.0)]
    return History(history.predicted[picked], history.truth[picked], history.slots[picked], history.choice)


@njit(cache=True)
def _solve(prices: Floats, value: Floats, drift: Floats, lags: Floats, days: int) -> Floats:  # pragma: no cover
    slots, actions = value.shape
    levels = lags.shape[0]
    top = lags[levels - 1]
    future = np.zeros(levels)
    chosen = np.zeros((slots, levels))
    for _ in range(days):
        for slot in range(slots - 1, -1, -1):
            current = np.empty(levels)
            for level in range(levels):
                best = -1e300
                arg = actions - 1
                for action in range(actions):
                    after = lags[level] + drift[slot, action]
                    penalty = 0.0
                    if after > top:
                        # Cannot be held: only what the guard leaves of it, so cheaper actions are better.
                        penalty = 1e6 * (after - top) / top
                        after = top
                    elif after < 0:
                        after = 0.0
                    low = np.searchsorted(lags, after, side="right") - 1
                    if low >= levels - 1:
                        worth = future[levels - 1]
                    else:
                        part = (after - lags[low]) / (lags[low + 1] - lags[low])
                        worth = future[low] * (1 - part) + future[low + 1] * part
                    total = value[slot, action] + worth - penalty
                    if total > best + 1e-12:
                        best = total
                        arg = action
                current[level] = best
                chosen[slot, level] = prices[arg]
            future = current - current[0]
    return chosen
