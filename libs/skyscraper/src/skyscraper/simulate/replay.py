"""The simulated pool: segments arrive, wait, are worked off in order, and are lost when they waited too long.

All streams share the pool. Their segments of one round arrive together and are served in the order of the streams;
a segment that takes w core-seconds holds the pool for w / cores. On a burst machine it takes nothing of the pool, but
its bytes occupy the uplink, one segment after the other, and machines may be taken away before it is done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.work import recalibrated

Floats = NDArray[np.float64]

# A segment that would wait longer for the uplink is better done in the pool.
_UPLINK_PATIENCE_SECONDS = 10.0
# `replay`'s clock where nothing has happened yet and estimates are taken as right; and how many sums it keeps.
FRESH_CLOCK = np.array([0.0, 0.0, 1.0, 0.0])
SUMS = 7


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
    bytes_before: Floats  # [T+1] bytes that arrived before each round, all streams
    buffer_bytes: float  # more than this waiting, and the oldest is lost
    uplink_seconds: Floats  # [T,N] that a segment occupies the uplink
    burst_seconds: Floats  # [N,O] until the result is back, once sent; 0 for pool options
    burst_up: NDArray[np.bool_]  # [T] whether burst machines answer; those busy when they stop lose their segment


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

    clock, carried on: when the pool is free (s), dollars of the day, work seen over work estimated, when the uplink is
    free (s). sums, added to: quality, core-seconds, dollars, segments lost, longest wait (s), most dollars over a day's
    budget, segments that burst machines did not finish. chosen [T,N]: the option taken, -1 where the segment was lost.
    """
    rounds = world.burst_up.shape[0]
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
            head = min(int(now / world.segment_seconds), rounds)
            waiting_bytes = world.bytes_before[max(head, t)] - world.bytes_before[t]
            if lag > world.buffer_seconds + 1e-9 or waiting_bytes > world.buffer_bytes:
                sums[3] += 1
                chosen[t, v] = -1
                clock[0] = now
                continue
            # Work that lately was less than estimated may at any time be as estimated again.
            scale = (1.0 + world.uncertainty) * max(clock[2], 1.0)
            if v == streams - 1:
                slack = (arrival + world.segment_seconds + world.limit_seconds - now) * world.cores / scale
            else:
                behind = floors[v + 1] - floors[streams - 1]
                slack = (arrival + world.limit_seconds - now) * world.cores / scale - behind
            budget = world.usd_per_day - clock[1]
            present = min(int(now / world.segment_seconds), rounds - 1)
            if not world.burst_up[present] or clock[3] > now + _UPLINK_PATIENCE_SECONDS:
                # Nothing that costs dollars can be had.
                budget = -1.0
            option = decide(state, t, v, lag, slack, budget)
            if world.usd[v, option] > 0:
                clock[3] = max(clock[3], now) + world.uplink_seconds[t, v]
                back = clock[3] + world.burst_seconds[v, option]
                if not world.burst_up[min(int(back / world.segment_seconds), rounds - 1)]:
                    # The machine was taken away: paid for, and done again in the pool.
                    clock[1] += world.usd[v, option]
                    sums[2] += world.usd[v, option]
                    sums[5] = max(sums[5], clock[1] - world.usd_per_day)
                    sums[6] += 1
                    option = decide(state, t, v, lag, slack, -1.0)
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
