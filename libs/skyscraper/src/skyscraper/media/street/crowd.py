"""Crowds that gather and leave again: the content of the paper's MOSEI workloads (section 5.2). Pure and seeded.

The shapes of `mosei-high` and `mosei-long` of `skyscraper trace generate`, here as a share of the street's density.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# Streams differ in who walks by, not in when: the paper's peaks are of all streams together.
_SEED = 62
_QUIET = 0.1


@dataclass(frozen=True)
class _Shape:
    """How many gatherings there are a day, and how long they last on average and at most."""

    per_hour: float
    mean_hours: float
    most_hours: float


_SHAPES = {
    # Too short and high for an uplink (MOSEI-HIGH): 400 a day of 40 s.
    "spikes": _Shape(400 / 24, 40 / 3600, 200 / 3600),
    # Too long for a buffer (MOSEI-LONG): 4 a day of 1.5 h.
    "peaks": _Shape(4 / 24, 1.5, 6.0),
}


@dataclass(frozen=True)
class CrowdCurve:
    """`kind`: spikes or peaks."""

    kind: str

    def crowd(self, hour: float) -> float:
        """Share of the highest density, 0 to 1, at an hour since the first midnight."""
        shape = _SHAPES[self.kind]
        now = int(hour // shape.most_hours)
        # A gathering that is still on began in this slot or in the one before.
        begun = (one for slot in (now - 1, now) for one in _gatherings(self.kind, slot))
        return 1.0 if any(start <= hour < end for start, end in begun) else _QUIET


@lru_cache(maxsize=1024)
def _gatherings(kind: str, slot: int) -> tuple[tuple[float, float], ...]:
    """First and last hour of those that begin in a slot, as long as the longest of them."""
    shape = _SHAPES[kind]
    rng = np.random.default_rng([_SEED, list(_SHAPES).index(kind), slot % (1 << 31)])
    count = int(rng.poisson(shape.per_hour * shape.most_hours))
    starts = (slot + rng.uniform(size=count)) * shape.most_hours
    lengths = np.minimum(rng.exponential(shape.mean_hours, count), shape.most_hours)
    return tuple(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))
