"""When to send a request a second time: after the 95th percentile of what such requests take (Dean and Barroso, "The
Tail at Scale", CACM 2013), for a small share of all, so that a slow pool is not made slower."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

_REMEMBERED = 200
# A percentile of fewer is chance.
_FEWEST = 20
_PERCENTILE = 95.0
# A hedge is worth its dollars only where it can still end in time: as long as half of such requests take.
_NEEDED_PERCENTILE = 50.0
# How often the percentiles are worked out anew: they move slowly, and every request asks.
_STEPS = 10


@dataclass(frozen=True)
class Percentiles:
    median_seconds: float
    late_seconds: float


class Latencies:
    """How long requests of one kind took, lately."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._added = 0
        self._percentiles: Percentiles | None = None

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self._added += 1
        if self._added % _STEPS == 0 and len(self._seconds) >= _FEWEST:
            median, late = np.percentile(np.fromiter(self._seconds, float), (_NEEDED_PERCENTILE, _PERCENTILE))
            self._percentiles = Percentiles(float(median), float(late))

    @property
    def percentiles(self) -> Percentiles | None:
        """None while too few are known."""
        return self._percentiles


class Hedges:
    """Bounds hedges to a share of the requests; at most `burst` may come at once after a quiet time."""

    def __init__(self, share: float, burst: int = 10) -> None:
        self._share = share
        self._burst = burst
        self._tokens = float(burst) if share > 0 else 0.0

    def sent(self) -> None:
        self._tokens = min(self._burst, self._tokens + self._share) if self._share > 0 else 0.0

    def take(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def hedge_after_seconds(known: Percentiles | None, left_seconds: float) -> float | None:
    """How long to wait before the second try; None where there is no use in one."""
    if known is None or known.late_seconds + known.median_seconds > left_seconds:
        return None
    return known.late_seconds
