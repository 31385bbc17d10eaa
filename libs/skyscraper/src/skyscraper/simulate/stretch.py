"""Days from minutes: a short recording of a whole day's range of content, replayed along seeded day curves.

A day of real video takes a day to analyse with every configuration. A street camera shows a day in minutes; its
recorded segments, real pixels with real results, are laid out again over full days: at every time of day runs are
taken from moments that were as busy and as light.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.media.street.day import DayCurve
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.trace import Trace

# People stay in view for some 10 to 30 seconds: runs of segments keep what holds over that time.
_RUN_SECONDS = (10.0, 30.0)
# Among so many moments nearest in crowd and light one is drawn, so that days do not repeat each other.
_NEAREST = 12
# The recording is dealt out in turns of so many seconds, each of which shows every time of day.
_TURN_SECONDS = 20.0


def stretch(trace: Trace, *, days: float, seed: int, base_seed: int, parts: tuple[float, ...] = (1.0,)) -> Trace:
    """`base_seed`: of the day curve that the recording followed. `parts`: shares of the days; each is made from
    segments of its own, so that what is learned on one part is tested on pixels that were never seen.

    Raises TraceError where the recording's hours are not known, or it is too short for so many parts.
    """
    if trace.hours is None:
        raise TraceError(f"{trace.name}: the hour of its segments is not known; record it from a street camera's day")
    rng = np.random.default_rng([seed, 17])
    base = DayCurve(base_seed)
    moments = np.array([(base.crowd(hour), base.light(hour)) for hour in trace.hours])
    count = int(days * SECONDS_PER_DAY / trace.segment_seconds)
    turn = max(1, round(_TURN_SECONDS / trace.segment_seconds))
    dealt = (np.arange(trace.segments) // turn) % len(parts)
    if trace.segments < 2 * turn * len(parts):
        raise TraceError(f"{trace.name}: {trace.segments} segments are too few to make {len(parts)} parts of them")
    ends = np.cumsum(parts) / sum(parts) * count
    curve = DayCurve(seed)
    rows = np.empty(count, dtype=np.int64)
    at = 0
    while at < count:
        hour = at * trace.segment_seconds / 3600
        mine = dealt == min(int(np.searchsorted(ends, at, side="right")), len(parts) - 1)
        away = np.abs(moments - (curve.crowd(hour), curve.light(hour))).sum(axis=1)
        start = int(rng.choice(np.argsort(np.where(mine, away, np.inf))[:_NEAREST]))
        length = int(rng.uniform(*_RUN_SECONDS) / trace.segment_seconds)
        # Centred, so that a run is as busy as its moment on average.
        run = np.arange(start - length // 2, start - length // 2 + length)
        run = run[(run >= 0) & (run < trace.segments)]
        run = run[mine[run]][: count - at]
        rows[at : at + len(run)] = run
        at += len(run)
    return replace(
        trace,
        name=f"{trace.name} stretched to {days:g} days",
        quality=trace.quality[rows],
        work_core_seconds=trace.work_core_seconds[rows],
        segment_bytes=trace.segment_bytes[rows],
        features=trace.features[rows],
        hours=np.arange(count) * trace.segment_seconds / 3600 % 24,
    )
