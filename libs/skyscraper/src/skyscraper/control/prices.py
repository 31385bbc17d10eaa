"""Shadow prices of work: a dynamic program over the time of day and the lag.

The state is (slot of the day, lag of the pool behind the cameras); the action is a price λ, at which every segment takes
`argmax q̂ − λ·work − μ·usd`. The value function's slope in the lag is what a core-second is worth: high before a rush with
a full buffer, low before a calm. Because the table holds every lag, backlog feeds back into the price by itself, with no
gain to tune. This replaces the paper's fixed plan α (equations 2 to 4), which is optimal only for the mean lag.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.demand import Demand

Floats = NDArray[np.float64]

# A few days of value iteration reach the periodic solution: a lag's influence fades within two days at 6 h of buffer.
_DAYS = 3


@dataclass(frozen=True)
class PriceTable:
    """λ [S, L] by slot of the day and lag; `lags` [L] in seconds; `overflow` is where the guard alone decides."""

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
