"""What the buffer holds, worked out anew every moment: deadlines for the guard, prices for the switch.

A thread of its own, so that a choice only reads the newest result. The deadline ages well: segments that were
processed meanwhile only move it back, so an old one is on the safe side.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray
from skyscraper.control.guard import deadline_seconds
from skyscraper.control.outlook import Known, Outlook, look
from skyscraper.v1 import plan_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.ahead import Ahead, Seen
from skyscraper_decoder.minds import Mind, Minds
from skyscraper_decoder.plans import PlanBook, PoolView
from skyscraper_decoder.predicting import predict_new
from skyscraper_decoder.turnstile import Turnstile

log = structlog.get_logger()

Floats = NDArray[np.float64]

_REFRESH_SECONDS = 0.5
# With a long backlog a refresh takes longer, and its result stays good for longer: it may take this part of the time.
_BUSY_SHARE = 0.02
# Prices are worked out anew so often while a slot of the plan passes, as in the simulator; no more often than this.
_LOOKS_PER_SLOT = 5
_LEAST_LOOK_SECONDS = 1.0
_JOIN_SECONDS = 5.0


class Foresight:
    """Call `refresh` in a loop, or let `start` do it."""

    def __init__(
        self,
        plans: PlanBook,
        ahead: Ahead,
        minds: Minds,
        turnstile: Turnstile,
        *,
        limit_seconds: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plans = plans
        self._ahead = ahead
        self._minds = minds
        self._turnstile = turnstile
        self._limit_seconds = limit_seconds
        self._clock = clock
        self._outlook: Outlook | None = None
        self._looked: tuple[float, int] = (-np.inf, 0)
        self._deadline: float | None = None
        self._uncertainty = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foresight", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def work_price(self, lag_seconds: float) -> float:
        """λ now, normalised quality per core-second; 0 without a plan."""
        outlook = self._outlook
        return 0.0 if outlook is None else outlook.at(lag_seconds)

    @property
    def cores(self) -> float:
        """That the pool delivers to the streams of this process."""
        return self._turnstile.cores * self._turnstile.speed

    def slack_core_seconds(
        self, *, start_seconds: float, arrived_seconds: float, partition: int, work_scale: float
    ) -> float:
        """The most estimated work that the guard allows for a segment that the pool would begin at `start_seconds`."""
        deadline = self._deadline
        if deadline is None:
            # What waits behind it is not known yet: it may only use its own time.
            deadline = arrived_seconds + self._limit_seconds(partition)
        return (deadline - start_seconds) * self.cores / ((1.0 + self._uncertainty) * max(work_scale, 1.0))

    def refresh(self) -> None:
        """Everything anew, prices only when it is time for them."""
        known = self._ahead.known()
        minds = {stream: mind for stream in _streams(known) if (mind := self._minds.get(stream)) is not None}
        self._uncertainty = max((float(mind.fit.work.uncertainty.max()) for mind in minds.values()), default=0.0)
        self._share_cores(_streams(known))
        self._deadline = self._work_off_deadline(minds)
        view = self._plans.pool()
        metrics.PLAN_STALE.set(self._plans.stale(view))
        if view is None:
            self._outlook = None
            return
        looked_at, version = self._looked
        now = self._clock()
        pause = max(_LEAST_LOOK_SECONDS, view.prices.slot_seconds / _LOOKS_PER_SLOT)
        if view.version != version or now - looked_at >= pause:
            self._looked = (now, view.version)
            self._outlook = self._look(view, known, minds)
            metrics.WORK_PRICE.set(self._outlook.at(0.0))

    def _share_cores(self, streams: Sequence[str]) -> None:
        """The turnstile's cores: the part of the pool that plans give to the streams owned here."""
        plans = [plan for plan in map(self._plans.stream, streams) if plan is not None]
        self._turnstile.set_cores(sum(plan.cores for plan in plans) or None)

    def _work_off_deadline(self, minds: Mapping[str, Mind]) -> float | None:
        rows, limits = [], []
        for partition, lines in self._ahead.waiting().items():
            limit = self._limit_seconds(partition)
            limits.append(limit)
            for line in lines:
                mind = minds.get(line.stream_id)
                if mind is not None:
                    seconds = line.duration_seconds or mind.fit.segment_seconds
                    rows.append((line.arrived_seconds, mind.floor_rate * seconds, limit))
        if not limits:
            return None
        rows.sort()
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        return deadline_seconds(
            self._clock(),
            table[:, 0],
            table[:, 1],
            np.append(table[:, 2], min(limits)),
            cores=self.cores,
            uncertainty=self._uncertainty,
        )

    def _look(self, view: PoolView, known: Mapping[int, Sequence[Seen]], minds: Mapping[str, Mind]) -> Outlook:
        by_stream: dict[str, list[Seen]] = {}
        for line in itertools.chain.from_iterable(known.values()):
            by_stream.setdefault(line.stream_id, []).append(line)
        streams = []
        for stream_id, mind in minds.items():
            plan = self._plans.stream(stream_id)
            lines = by_stream.get(stream_id, [])
            if plan is None or not lines:
                continue
            predict_new(mind.fit, lines, view.prices.day_seconds)
            quality = np.stack([line.predicted for line in lines if line.predicted is not None])
            streams.append(
                Known(
                    quality * plan.value_scale,
                    np.array([line.event_seconds for line in lines]),
                    mind.fit.work.estimate(view.prices.segment_seconds) * mind.work_scale,
                    _burst_usd(plan, mind, view),
                )
            )
        waiting = [lines[0].event_seconds for lines in self._ahead.waiting().values() if lines]
        newest = [lines[-1].event_seconds for lines in known.values() if lines]
        # Event time of the segment that is next; where nothing waits, of what will come.
        clock_seconds = min(waiting, default=max(newest, default=0.0))
        return look(view.prices, streams, clock_seconds=clock_seconds, cores=self._turnstile.cores)

    def _run(self) -> None:
        pause_seconds = _REFRESH_SECONDS
        while not self._stop.wait(pause_seconds):
            started = time.thread_time()
            try:
                self.refresh()
            except Exception:
                # Without it choices rest on an old deadline, which is on the safe side, and on old prices.
                metrics.SCOUT_FAILURES.labels("foresight").inc()
                log.exception("foresight_failed")
            pause_seconds = max(_REFRESH_SECONDS, (time.thread_time() - started) / _BUSY_SHARE)


def _burst_usd(plan: plan_pb2.StreamPlan, mind: Mind, view: PoolView) -> Floats | None:
    """[K] of a round, as the plan reckons."""
    if len(plan.burst_usd) != len(mind.configurations):
        return None
    return np.array(plan.burst_usd) * view.prices.segment_seconds / mind.fit.segment_seconds


def _streams(known: Mapping[int, Sequence[Seen]]) -> list[str]:
    return sorted({lines[-1].stream_id for lines in known.values() if lines})
