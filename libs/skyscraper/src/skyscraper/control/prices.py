"""Shadow prices of work: a dynamic program over the time of day, the content's level, and the lag.

The state is (slot of the day, level of the content, lag of the pool behind the cameras); the action is a price λ, at
which every segment takes `argmax q̂ − λ·work − μ·usd`. The value function's slope in the lag is what a core-second is
worth: high before a rush with a full buffer, low before a calm. Because the table holds every lag, backlog feeds back
into the price by itself, with no gain to tune. This replaces the paper's fixed plan α (equations 2 to 4), which knows
neither the lag nor when the content comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.content import Content, learn_content
from skyscraper.control.demand import Demand, Sample, demand, price_grid
from skyscraper.control.units import SECONDS_PER_DAY

Floats = NDArray[np.float64]

# Segments looked at in a plan, of all streams; at least so many of each, whose noise averages out over streams.
_ROWS = 60_000
_ROWS_PER_STREAM = 200
_GOLDEN = 0.6180339887498949
# 2^-10 of the bracket is finer than the spending forecast.
_BISECTIONS = 10
# Quality units per dollar beyond which nothing is ever bought.
_DEAREST_USD = 1e15
# Of quality, for all the dollars that a segment can take.
_LEAST_SHARE = 1e-3
# Days of value iteration: a lag's influence fades within a day at 6 h of buffer.
_DAYS = 2
_LAG_LEVELS = 64
# Content an hour before or behind a time of day speaks for it: so much of the day.
_REACH = 1 / 24


@dataclass(frozen=True)
class PricePlan:
    """λ by slot of the day, level and lag, and what the look-ahead needs to do better (see `lookahead`).

    grid [P] prices; lags [L] seconds; price, after [S,M,L]: λ, and the worth of a lag at the end of the slot; edges
    [M-1] between levels of need; usd_price μ; usd_curve [S+1] share of a day's dollars spent by the slot's start;
    last_need of the history's end.
    """

    grid: Floats
    lags: Floats
    price: Floats
    after: Floats
    edges: Floats
    usd_price: float
    usd_curve: Floats
    last_need: float

    def at(self, slot: int, level: int, lag_seconds: float) -> float:
        return float(np.interp(lag_seconds, self.lags, self.price[slot, level]))


def plan_streams(
    samples: Sequence[Sample],
    *,
    cores: float,
    segment_seconds: float,
    slot_seconds: float,
    buffer_seconds: float,
    usd_per_day: float,
    reach_seconds: float | None = None,
    day_seconds: float = SECONDS_PER_DAY,
) -> PricePlan:
    """The joint price plan of streams that share a pool and a budget, from samples of their past.

    A round is one segment of every stream; streams may have different options. After `day_seconds`, which slots
    divide, content comes again; `usd_per_day` are for so long. μ is the smallest price of a dollar, from a
    little above 0 on, at which a rehearsal over the past keeps the budget. Raises ValueError for no stream.
    """
    if not samples:
        raise ValueError("no stream to plan for")
    rows = max(_ROWS // len(samples), _ROWS_PER_STREAM)
    thinned = [_thin(sample, rows) for sample in samples]
    grid = price_grid(thinned)
    slots_per_day = round(day_seconds / slot_seconds)
    if reach_seconds is None:
        reach_seconds = _REACH * day_seconds
    slot_count = 1 + max(int(sample.slots.max()) for sample in thinned)
    # Finer at small lags, where a short buffer lives.
    lags = buffer_seconds * np.linspace(0, 1, _LAG_LEVELS) ** 2
    speed = slot_seconds / (cores * segment_seconds)

    def solve(mu: float) -> tuple[PricePlan, float]:
        past = demand(thinned, slot_count, grid, mu)
        content = learn_content(past, slots_per_day, round(reach_seconds / slot_seconds))
        drift = content.work * speed - slot_seconds
        price, after = _solve(grid, content.value, drift, content.chance, lags)
        even = np.linspace(0, 1, slots_per_day + 1)
        plan = PricePlan(grid, lags, price, after, content.edges, mu, even, float(past.need[-1]))
        usd = _rehearse(plan, content, past, speed, slot_seconds)
        # The rehearsal's first day only settles the lag, if there are others.
        settled = usd[slots_per_day:] if slot_count > slots_per_day else usd
        curve = np.zeros(slots_per_day)
        np.add.at(curve, np.arange(slot_count - len(settled), slot_count) % slots_per_day, settled)
        total = float(curve.sum())
        if total > 0:
            plan = replace(plan, usd_curve=np.concatenate([[0.0], np.cumsum(curve) / total]))
        return plan, float(settled.mean()) * day_seconds / segment_seconds

    least = _least_usd_price(thinned)
    plan, spend = solve(least)
    if spend <= usd_per_day:
        return plan
    low, high = least, max(1.0, 8 * least)
    while (found := solve(high))[1] > usd_per_day and high < _DEAREST_USD:
        low, high = high, high * 8
    plan = found[0]
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = solve(middle)
        if found[1] > usd_per_day:
            low = middle
        else:
            high, plan = middle, found[0]
    return plan


def _least_usd_price(samples: Sequence[Sample]) -> float:
    """Of dollars that the budget leaves over. Were they worth nothing, work in the pool would be, too, and all streams
    would crowd into it while machines stand by. So the dearest option costs a thousandth of the quality."""
    best = max(float(sample.truth.mean(axis=0).max()) for sample in samples)
    dearest = max(float(sample.choice.usd.max()) for sample in samples)
    return _LEAST_SHARE * best / dearest if dearest > 0 else 0.0


def _rehearse(plan: PricePlan, content: Content, past: Demand, speed: float, slot_seconds: float) -> Floats:
    """Dollars per round in each past slot, had the plan been followed."""
    usd = np.zeros(len(past.usd))
    lag, top = 0.0, float(plan.lags[-1])
    for slot, level in enumerate(content.levels):
        price = plan.at(slot % len(plan.price), int(level), lag)
        work = np.interp(price, plan.grid, past.work[slot])
        usd[slot] = np.interp(price, plan.grid, past.usd[slot])
        lag = min(max(lag + work * speed - slot_seconds, 0.0), top)
    return usd


def _thin(sample: Sample, rows: int) -> Sample:
    """Every n-th segment in a shuffled order of its own, so that any prefix is a fair sample of the day."""
    picked = np.linspace(0, len(sample.slots) - 1, min(rows, len(sample.slots))).astype(np.int64)
    picked = picked[np.argsort((np.arange(len(picked)) * _GOLDEN) % 1.0)]
    return Sample(sample.predicted[picked], sample.truth[picked], sample.slots[picked], sample.choice)


@njit(cache=True)
def worth_at(lag: float, lags: Floats, worth: Floats) -> float:  # pragma: no cover - compiled
    """worth over lags (which grow as the square of their index), interpolated; flat beyond the ends."""
    top = lags.shape[0] - 1
    if lag <= 0:
        return float(worth[0])
    if lag >= lags[top]:
        return float(worth[top])
    low = min(int(np.sqrt(lag / lags[top]) * top), top - 1)
    part = (lag - lags[low]) / (lags[low + 1] - lags[low])
    return float(worth[low] * (1 - part) + worth[low + 1] * part)


@njit(cache=True)
def best_prices(  # pragma: no cover - compiled
    grid: Floats, value: Floats, drift: Floats, after: Floats, lags: Floats, price: Floats, worth: Floats
) -> None:
    """One step back: from the worth of every lag after a slot, the best price in it and the worth before it, by lag.

    value, drift [P]; after, lags, price, worth [L]. The best price never falls with the lag, so each lag's search
    starts where the last ended.
    """
    top = lags[lags.shape[0] - 1]
    # More than any value that could be gained by it.
    steep = 1e3 * (np.abs(value).max() + np.abs(after).max() + 1e-12)
    begin = 0
    for level in range(lags.shape[0]):
        best, arg = -1e300, begin
        for action in range(begin, grid.shape[0]):
            lag = lags[level] + drift[action]
            total = value[action] + worth_at(lag, lags, after)
            if lag > top:
                # Cannot be held: only what the guard leaves of it, so cheaper actions are better.
                total -= steep * (lag - top) / top
            if total > best:
                best, arg = total, action
        worth[level] = best
        price[level] = grid[arg]
        begin = arg


@njit(cache=True)
def _solve(  # pragma: no cover - compiled
    grid: Floats, value: Floats, drift: Floats, chance: Floats, lags: Floats
) -> tuple[Floats, Floats]:
    slots, levels = value.shape[0], value.shape[1]
    count = lags.shape[0]
    price = np.zeros((slots, levels, count))
    after = np.zeros((slots, levels, count))
    worth = np.zeros((levels, count))
    for _ in range(_DAYS):
        for slot in range(slots - 1, -1, -1):
            base = worth[0, 0]
            for level in range(levels):
                for index in range(count):
                    total = 0.0
                    for to in range(levels):
                        total += chance[slot, level, to] * (worth[to, index] - base)
                    after[slot, level, index] = total
            for level in range(levels):
                best_prices(
                    grid,
                    value[slot, level],
                    drift[slot, level],
                    after[slot, level],
                    lags,
                    price[slot, level],
                    worth[level],
                )
    return price, after
