"""Whose segment is next: streams of one process compete for its part of the pool.

The oldest waiting segment goes first, as in the simulator, so that no stream lags behind the others by more than a
segment. One begins only when the pool's clock says that what was begun before it is done (see `control/pool.py`): the
process never takes more than its cores from the pool, whatever hardware it runs on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from skyscraper.control.pool import PoolClock, begun, ended

from skyscraper_decoder import metrics

# How soon a closed lane, or cores that have grown, are noticed by who waits.
_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class Waiting:
    """Streams that are not admitted come after all others."""

    refused: bool
    arrived_seconds: float
    key: int

    def __lt__(self, other: Waiting) -> bool:
        return (self.refused, self.arrived_seconds, self.key) < (other.refused, other.arrived_seconds, other.key)


class Turn:
    """One segment's time in the pool, from its choice to its end. Used by one thread."""

    def __init__(self, turnstile: Turnstile, now_seconds: float, start_seconds: float) -> None:
        self._turnstile = turnstile
        self._estimated: float | None = None
        self._away = False
        self.now_seconds = now_seconds
        self.start_seconds = start_seconds
        """When the pool will be at it: later than now where its cores still have work."""
        self.measured_core_seconds = 0.0

    def begin(self, estimated_core_seconds: float, *, away: bool = False) -> None:
        """The choice is made; the next segment may be chosen for. `away`: on burst machines, but for so much of the
        pool; it is not among those that run here at once."""
        self._estimated, self._away = estimated_core_seconds, away
        self._turnstile._begin(estimated_core_seconds, away)  # noqa: SLF001 - one thing in two classes

    def come_back(self, estimated_core_seconds: float) -> None:
        """What was away is done here after all, at once: its turn had come already."""
        before, self._estimated, self._away = self._estimated or 0.0, estimated_core_seconds, False
        self._turnstile._come_back(estimated_core_seconds - before)  # noqa: SLF001

    def end(self) -> None:
        """Always to be called; `measured_core_seconds` counts instead of the estimate."""
        self._turnstile._end(self._estimated, self.measured_core_seconds, self._away)  # noqa: SLF001


class Turnstile:
    """Shared by all lanes of a process."""

    def __init__(
        self, *, own_cores: float | None, concurrent: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """own_cores: what holds until plans say more; None does not bound work, and counts this machine's CPUs."""
        self._own_cores = own_cores
        self._cores = own_cores or float(os.cpu_count() or 1)
        self._bounded = own_cores is not None
        self._concurrent = concurrent
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[int, Waiting] = {}
        self._running = 0
        self._choosing = False
        self._saturated = False
        self._pool = PoolClock(window_start_seconds=clock())

    @property
    def cores(self) -> float:
        """Of the pool, for the streams of this process."""
        return self._cores

    @property
    def speed(self) -> float:
        """Delivered core-seconds per promised one."""
        with self._changed:
            return self._pool.speed

    def set_cores(self, planned: float | None) -> None:
        """What plans give to the streams of this process; None where there are none."""
        with self._changed:
            self._cores = planned or self._own_cores or float(os.cpu_count() or 1)
            self._bounded = bool(planned or self._own_cores)
            metrics.POOL_CORES.set(self._cores)
            self._changed.notify_all()

    def enter(self, key: int, *, arrived_seconds: float, refused: bool, closed: Callable[[], bool]) -> Turn | None:
        """Wait for the turn of the lane `key`; None where it was closed meanwhile. Until `Turn.begin` nobody else
        chooses, so choose at once."""
        with self._changed:
            mine = Waiting(refused, arrived_seconds, key)
            self._waiting[key] = mine
            metrics.WAITING.set(len(self._waiting))
            try:
                while not closed():
                    now = self._clock()
                    wait_seconds = self._blocked_seconds(mine, now)
                    if wait_seconds <= 0:
                        self._choosing = True
                        self._running += 1
                        return Turn(self, now, self._pool.start(now) if self._bounded else now)
                    self._changed.wait(min(wait_seconds, _WAIT_SECONDS))
                return None
            finally:
                del self._waiting[key]
                metrics.WAITING.set(len(self._waiting))
                self._changed.notify_all()

    def _blocked_seconds(self, mine: Waiting, now: float) -> float:
        if self._choosing or min(self._waiting.values()) is not mine:
            return _WAIT_SECONDS
        free = self._pool.free_at_seconds - now
        if self._bounded and free > 0:
            return free
        if self._running >= self._concurrent:
            self._saturated = True
            return _WAIT_SECONDS
        return 0.0

    def _begin(self, estimated: float, away: bool) -> None:
        with self._changed:
            self._choosing = False
            self._running -= away
            self._pool = begun(self._pool, now_seconds=self._clock(), core_seconds=estimated, cores=self._cores)
            self._changed.notify_all()

    def _come_back(self, more: float) -> None:
        with self._changed:
            self._running += 1
            self._pool = begun(self._pool, now_seconds=self._clock(), core_seconds=more, cores=self._cores)

    def _end(self, estimated: float | None, measured: float, away: bool) -> None:
        with self._changed:
            self._running -= not away
            if estimated is None:
                self._choosing = False
                estimated = 0.0
            self._pool = ended(
                self._pool,
                now_seconds=self._clock(),
                estimated=estimated,
                measured=measured,
                cores=self._cores,
                saturated=self._saturated,
            )
            # Whoever still waits behind a full house says so again.
            self._saturated = False
            metrics.POOL_SPEED.set(self._pool.speed)
            self._changed.notify_all()
