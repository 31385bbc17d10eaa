"""The last word on every choice: no segment may wait in the buffer longer than the limit.

Segments are worked off in order of arrival. A choice of work w at time t ends at t + w / cores, and the next segment,
which arrived (or arrives) at a, must start by a + limit. Because the cheapest configuration is faster than
the stream (admission), a backlog that is within the limit for the next segment stays within it at the cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def slack_core_seconds(
    now_seconds: float, next_arrival_seconds: float, limit_seconds: float, cores: float, uncertainty: float
) -> float:
    """The largest estimated work that may be chosen now. Negative: the cheapest, and the backlog is over the limit.

    `uncertainty`: real work is at most (1 + uncertainty) times its estimate.
    """
    return (next_arrival_seconds + limit_seconds - now_seconds) * cores / (1.0 + uncertainty)


def allowed(work_core_seconds: Sequence[float], slack: float) -> list[int]:
    """Configurations that the guard allows; the cheapest always is, as the floor."""
    return [index for index, work in enumerate(work_core_seconds) if index == 0 or work <= slack]


def deadline_seconds(
    now_seconds: float, arrivals: Floats, floors: Floats, limits: Floats, *, cores: float, uncertainty: float
) -> float:
    """When a choice made now must have ended, so that everything behind it keeps its limit at the cheapest.

    Of the segments that wait behind the one to choose for, in their order: arrivals [T] on the clock of `now_seconds`,
    floors [T] estimated core-seconds of their cheapest configurations, limits [T] seconds that each may wait. A segment
    that arrives right now counts as waiting, with the least of the limits. Any pattern of arrivals is covered, several
    at one moment included; that later ones are is admission's part. Without a segment behind, `limits` still has one.
    """
    speed = cores / (1.0 + uncertainty)
    before = np.concatenate([[0.0], np.cumsum(floors)]) / speed
    coming = now_seconds + float(limits.min()) - float(before[-1])
    if len(arrivals) == 0:
        return coming
    return min(coming, float((arrivals + limits[: len(arrivals)] - before[:-1]).min()))
