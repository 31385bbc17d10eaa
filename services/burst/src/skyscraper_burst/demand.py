"""Work that waits: what the pool's scaling goes by.

What is inside the gateway counts until it is done. What was asked of a pool without machines was refused, and is done
elsewhere; it keeps counting for a while, or nothing would ever start the first machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Demand:
    """Core-seconds. One thread."""

    def __init__(
        self, memory_seconds: float, clock: Callable[[], float], *, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._memory_seconds = memory_seconds
        self._clock = clock
        self._changed = changed
        self._inside = 0.0
        self._requests = 0
        self._missed = 0.0
        self._at_seconds = clock()

    def begin(self, core_seconds: float) -> None:
        self._inside += core_seconds
        self._requests += 1
        self._changed()

    def end(self, core_seconds: float) -> None:
        self._requests -= 1
        # Sums of fractions that come and go leave a rest, and a pool with any work never goes to zero.
        self._inside = max(0.0, self._inside - core_seconds) if self._requests else 0.0

    def miss(self, core_seconds: float) -> None:
        """Asked for while no machine was there."""
        self._decay()
        self._missed += core_seconds
        self._changed()

    @property
    def waiting_core_seconds(self) -> float:
        self._decay()
        return self._inside + self._missed

    def _decay(self) -> None:
        now = self._clock()
        self._missed *= math.exp(-(now - self._at_seconds) / self._memory_seconds)
        self._at_seconds = now
        # Else it would take minutes more until nothing waits.
        if self._missed < _NOTHING_CORE_SECONDS:
            self._missed = 0.0


# Less than any model's single request.
_NOTHING_CORE_SECONDS = 0.01
