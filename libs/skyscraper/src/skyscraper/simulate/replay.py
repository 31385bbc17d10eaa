"""The simulated pool: segments arrive, wait, are worked off in order, and are lost when they waited too long.

All streams share the pool. Their segments of one round arrive together and are served in the order of the streams;
a segment that takes w core-seconds holds the pool for w / cores. On a burst machine it takes nothing of the pool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.work import recalibrated

Floats = NDArray[np.float64]


class World(NamedTuple):
    """What happens, whatever is decided. T rounds, N streams, K configurations, O options (placements included)."""

    quality: Floats  # [T,N,K]
    work: Floats  # [T,N,K] true core-seconds
    estimate: Floats  # [N,O] core-seconds of the pool as estimated, 0 for burst options
    usd: Floats  # [N,O]
    configuration: NDArray[np.int64]  # [O]
    segment_seconds: float
    cores: float
    limit_seconds: float  # the guard's; never above buffer_seconds
    buffer_seconds: float  # a segment that waited longer is lost
    uncertainty: float  # relative, of estimates, for the guard
    usd_per_day: float
    first_round: int  # rounds since midnight before round 0
    outage_start_seconds: float
    outage_stop_seconds: float


@njit
def replay(  # pragma: no cover - compiled
    prepare: Any,
    decide: Any,
    observe: Any,
    state: Any,
    world: World,
    clock: Floats,
    sums: Floats,
    chosen: NDArray[np.int16],
    start: int,
    stop: int,
) -> None:
    """Rounds start..stop under a policy (see `policies`).

    clock, carried on: when the pool is free (s), dollars of the day, work seen over work estimated. sums, added to:
    quality, core-seconds, dollars, segments lost, longest wait (s), most dollars over a day's budget. chosen [T,N]: the
    option taken, -1 where the segment was lost.
    """
    streams = world.quality.shape[1]
    day_rounds = int(round(86400.0 / world.segment_seconds))
    floors = np.zeros(streams + 1)
    for v in range(streams - 1, -1, -1):
        floors[v] = floors[v + 1] + world.estimate[v, 0]
    for t in range(start, stop):
        if (t + world.first_round) % day_rounds == 0:
            clock[1] = 0.0
        arrival = (t + 1) * world.segment_seconds
        prepare(state, t, max(clock[0] - arrival, 0.0), world.usd_per_day - clock[1])
        for v in range(streams):
            now = max(clock[0], arrival)
            if world.outage_start_seconds <= now < world.outage_stop_seconds:
                now = world.outage_stop_seconds
            lag = now - arrival
            sums[4] = max(sums[4], lag)
            if lag > world.buffer_seconds + 1e-9:
                sums[3] += 1
                chosen[t, v] = -1
                clock[0] = now
                continue
            scale = (1.0 + world.uncertainty) * clock[2]
            if v == streams - 1:
                slack = (arrival + world.segment_seconds + world.limit_seconds - now) * world.cores / scale
            else:
                behind = floors[v + 1] - floors[streams - 1]
                slack = (arrival + world.limit_seconds - now) * world.cores / scale - behind
            budget = world.usd_per_day - clock[1]
            option = decide(state, t, v, lag, slack, budget)
            k = world.configuration[option]
            quality = world.quality[t, v, k]
            usd = world.usd[v, option]
            sums[0] += quality
            sums[2] += usd
            clock[1] += usd
            sums[5] = max(sums[5], clock[1] - world.usd_per_day)
            chosen[t, v] = option
            busy = 0.0
            if world.estimate[v, option] > 0:
                busy = world.work[t, v, k]
                clock[2] = recalibrated(clock[2], world.estimate[v, option], busy)
            busy += observe(state, t, v, option, quality)
            sums[1] += busy
            clock[0] = now + busy / world.cores
