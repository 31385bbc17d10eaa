"""Which configurations are worth having: greedy hill climbing on each sampled segment (paper section 3.1).

From the cheapest values of all knobs, one knob is raised at a time: the one that buys most quality for its work. What
was seen on the way and is dominated by nothing is kept; the union over segments is thinned to the few that serve all
segments at all budgets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.pipeline.knobs import Configuration, Knob

Floats = NDArray[np.float64]

# Work budgets, log-spaced, at which a set of configurations is judged.
_BUDGETS = 24


@dataclass(frozen=True)
class Score:
    """One configuration on one segment."""

    quality: float
    work: float


Key = tuple[object, ...]
# Scores of (segment, configuration) pairs, in their order.
Measure = Callable[[Sequence[tuple[int, Configuration]]], Sequence[Score]]


@dataclass(frozen=True)
class Found:
    """The configurations to use, from the cheapest, and all that was measured on the way: per segment, by key."""

    configurations: list[Configuration]
    measured: list[dict[Key, Score]]


def key_of(configuration: Configuration) -> Key:
    return tuple(configuration.values())


def cheapest(knobs: Sequence[Knob]) -> Configuration:
    return {knob.name: knob.domain[0] for knob in knobs}


def dearest(knobs: Sequence[Knob]) -> Configuration:
    return {knob.name: knob.domain[-1] for knob in knobs}


def search(knobs: Sequence[Knob], segments: int, measure: Measure, *, most: int) -> Found:
    """At most `most` configurations (2 or more). The number of rounds is bounded by the sum of the domains."""
    known: list[dict[Key, Score]] = [{} for _ in range(segments)]
    by_key: dict[Key, Configuration] = {}
    current: list[Configuration | None] = [cheapest(knobs)] * segments
    visited: list[set[Key]] = [{key_of(cheapest(knobs))} for _ in range(segments)]
    for _ in range(sum(len(knob.domain) for knob in knobs)):
        wanted: list[tuple[int, Configuration]] = []
        for segment, at in enumerate(current):
            if at is not None:
                wanted += [(segment, one) for one in (at, *_neighbours(knobs, at)) if key_of(one) not in known[segment]]
        for (segment, one), score in zip(wanted, measure(wanted), strict=True):
            known[segment][key_of(one)] = score
            by_key[key_of(one)] = one
        for segment, at in enumerate(current):
            if at is None:
                continue
            fresh = [one for one in _neighbours(knobs, at) if key_of(one) not in visited[segment]]
            here = known[segment][key_of(at)]
            current[segment] = max(fresh, key=lambda one: _gain(here, known[segment][key_of(one)]), default=None)
            if (step := current[segment]) is not None:
                visited[segment].add(key_of(step))
        if all(at is None for at in current):
            break
    keys = list({key for scores in known for key in _pareto(scores)})
    wanted = [(segment, by_key[key]) for segment in range(segments) for key in keys if key not in known[segment]]
    for (segment, one), score in zip(wanted, measure(wanted), strict=True):
        known[segment][key_of(one)] = score
    quality = np.array([[known[segment][key].quality for key in keys] for segment in range(segments)])
    work = np.array([[known[segment][key].work for key in keys] for segment in range(segments)])
    return Found([by_key[keys[index]] for index in thin(quality, work.mean(axis=0), most)], known)


def thin(quality: Floats, work: Floats, most: int) -> list[int]:
    """The columns of quality [N,K] to keep, from the cheapest: the cheapest, and then one by one whatever adds most to
    the best quality within a budget, over all segments and budgets."""
    budgets = np.geomspace(work.min(), work.max(), _BUDGETS)
    scale = np.maximum(quality.max(axis=1, keepdims=True), 1e-12)
    # Worth of a configuration for a segment at a budget: nothing where it does not fit.
    worth = np.where(work[None, None, :] <= budgets[None, :, None] * (1 + 1e-9), (quality / scale)[:, None, :], 0.0)
    kept = [int(np.argmin(work))]
    best = worth[:, :, kept[0]]
    while len(kept) < min(most, len(work)):
        gains = np.maximum(worth - best[:, :, None], 0).mean(axis=(0, 1))
        index = int(np.argmax(gains))
        if gains[index] <= 1e-6:
            break
        kept.append(index)
        best = np.maximum(best, worth[:, :, index])
    return sorted(kept, key=lambda one: work[one])


def _neighbours(knobs: Sequence[Knob], at: Configuration) -> list[Configuration]:
    """One knob one step dearer; a knob whose values are words has no order, so any other of its values."""
    found: list[Configuration] = []
    for knob in knobs:
        index = knob.domain.index(at[knob.name])
        ordered = all(not isinstance(value, str) for value in knob.domain)
        others = knob.domain[index + 1 : index + 2] if ordered else [v for v in knob.domain if v != knob.domain[index]]
        found += [{**at, knob.name: value} for value in others]
    return found


def _gain(here: Score, there: Score) -> float:
    """Quality for work; what is cheaper and no worse comes before everything that costs."""
    quality, work = there.quality - here.quality, there.work - here.work
    if work <= 0:
        return np.inf if quality >= 0 else quality / max(-work, 1e-9)
    return quality / work


def _pareto(scores: dict[Key, Score]) -> list[Key]:
    """Those that nothing beats in quality at the same or less work."""
    kept, best = [], -np.inf
    for key, score in sorted(scores.items(), key=lambda item: (item[1].work, -item[1].quality)):
        if score.quality > best:
            kept.append(key)
            best = score.quality
    return kept
