"""The pool of cores as a clock: when what was begun will be done, if cores deliver what they promise.

The same single server that the simulator replays (see `simulate/replay.py`): a segment of w core-seconds holds it for
w / cores seconds, one after the other in the order of arrival. It is what makes `pool_cores` a promise on any machine:
faster hardware does not take more of it, and slower hardware is noticed (`PoolClock.speed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Of one window's measurement; a stall of some windows is believed, a single one is not.
_SPEED_GAIN = 0.3
# A pool that stands still is no reason to divide by zero.
_LEAST_SPEED = 0.02
# Shorter windows would measure single segments.
_WINDOW_SECONDS = 2.0


@dataclass(frozen=True)
class PoolClock:
    """free_at_seconds: when the pool is done with what was begun, on the caller's monotonic clock.

    speed: delivered core-seconds per promised one, lately, at most 1; measured only while more was wanted than ran.
    """

    free_at_seconds: float = 0.0
    speed: float = 1.0
    window_start_seconds: float = 0.0
    window_core_seconds: float = 0.0
    window_saturated: bool = True

    def start(self, now_seconds: float) -> float:
        """When a segment that begins now will be at work."""
        return max(self.free_at_seconds, now_seconds)


def begun(clock: PoolClock, *, now_seconds: float, core_seconds: float, cores: float) -> PoolClock:
    """After a choice of estimated work."""
    return replace(clock, free_at_seconds=clock.start(now_seconds) + core_seconds / cores)


def ended(
    clock: PoolClock, *, now_seconds: float, estimated: float, measured: float, cores: float, saturated: bool
) -> PoolClock:
    """After a segment's end: its real work instead of its estimate.

    saturated: segments waited although the pool's clock was free, since all that may run at once ran.
    """
    clock = replace(
        clock,
        free_at_seconds=clock.free_at_seconds + (measured - estimated) / cores,
        window_core_seconds=clock.window_core_seconds + measured,
        window_saturated=clock.window_saturated and saturated,
    )
    length = now_seconds - clock.window_start_seconds
    if length < _WINDOW_SECONDS:
        return clock
    # A pool that was not asked for all it has tells nothing; then the promise is slowly believed again.
    seen = clock.window_core_seconds / (length * cores) if clock.window_saturated else 1.0
    speed = clock.speed + _SPEED_GAIN * (min(seen, 1.0) - clock.speed)
    return replace(
        clock,
        speed=max(speed, _LEAST_SPEED),
        window_start_seconds=now_seconds,
        window_core_seconds=0.0,
        window_saturated=True,
    )
