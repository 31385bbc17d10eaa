"""How the content of all streams moves between calm and rush: a Markov chain over levels of need, by time of day.

A rush that comes at no fixed hour is not foreseen by a table of the day; but once it is there, how long such rushes
last is known from the past. The chain holds both: levels, and how they follow each other around each time of day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.demand import Demand

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Calm, rush and a few steps between: 4, 8 and 12 give the same quality.
LEVELS = 5
# What the whole history says of a level weighs as much as so many slots of that time of day.
_PRIOR_SLOTS = 6.0
# In one dimension the clusters settle within a few.
_CLUSTER_STEPS = 20


@dataclass(frozen=True)
class Content:
    """By slot of the day s and level m: value, work [S,M,P] per round; chance [S,M,M] of the level of slot s+1
    given that of slot s; edges [M-1] between the levels' needs; levels [D] of the history's slots."""

    value: Floats
    work: Floats
    chance: Floats
    edges: Floats
    levels: Integers


def learn_content(past: Demand, slots_per_day: int, reach: int) -> Content:
    """From consecutive past slots, the first of which begins at midnight. `reach`: how many slots before and behind a
    time of day speak for it."""
    need = past.need
    edges = _edges(need)
    levels = np.searchsorted(edges, need).astype(np.int64)
    count = len(edges) + 1
    day = np.arange(len(need)) % slots_per_day
    member = np.zeros((slots_per_day, count))
    np.add.at(member, (day, levels), 1.0)
    around = _around(member, reach)
    share = member.sum(axis=0)
    tables = []
    for table in (past.value, past.work):
        sums = np.zeros((slots_per_day, count, table.shape[1]))
        np.add.at(sums, (day, levels), table)
        mean = sums.sum(axis=0) / np.maximum(share, 1)[:, None]
        tables.append((_around(sums, reach) + _PRIOR_SLOTS * mean) / (around + _PRIOR_SLOTS)[:, :, None])
    steps = np.zeros((slots_per_day, count, count))
    np.add.at(steps, (day[:-1], levels[:-1], levels[1:]), 1.0)
    overall = steps.sum(axis=0) + 1e-3
    overall /= overall.sum(axis=1, keepdims=True)
    chance = _around(steps, reach) + _PRIOR_SLOTS * overall
    chance /= chance.sum(axis=2, keepdims=True)
    return Content(tables[0], tables[1], chance, edges, levels)


def _edges(need: Floats) -> Floats:
    """Midpoints between the centres of clusters of need (k-means from evenly spaced ones: the same every time)."""
    centres = np.linspace(need.min(), need.max(), LEVELS)
    for _ in range(_CLUSTER_STEPS):
        member = np.searchsorted((centres[1:] + centres[:-1]) / 2, need)
        counts = np.bincount(member, minlength=len(centres))
        sums = np.bincount(member, weights=need, minlength=len(centres))
        # One that nobody is near to is dropped: content between calm and rush need not exist.
        centres = sums[counts > 0] / counts[counts > 0]
    return np.asarray((centres[1:] + centres[:-1]) / 2)


def _around(table: Floats, reach: int) -> Floats:
    """Sums over slots of the day within `reach`, round the clock; over the whole day where that is shorter."""
    slots = len(table)
    if 2 * reach + 1 >= slots:
        return np.broadcast_to(table.sum(axis=0), table.shape).copy()
    long = np.concatenate([table[slots - reach :], table, table[:reach]])
    sums = np.concatenate([np.zeros((1, *table.shape[1:])), np.cumsum(long, axis=0)])
    return np.asarray(sums[2 * reach + 1 :] - sums[: -(2 * reach + 1)])
