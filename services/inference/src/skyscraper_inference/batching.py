"""Which waiting requests run next, and whether it pays to wait for more. Pure: plain data and a given `now`.

A batch of n rows takes about `a + b * n`, fitted online over the recent batches. On a GPU `a` is most of it and
filling a batch is worth a wait; on a CPU `a` is near zero and waiting only adds latency, so the same rule goes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

# Enough to average out a noisy machine, few enough to follow a change within seconds.
_REMEMBERED_BATCHES = 64
_REMEMBERED_ARRIVALS = 64


@dataclass(frozen=True)
class Waiting:
    """A request in the queue. `rows` and `size_bytes` of its inputs; times on the monotonic clock."""

    number: int
    rows: int
    size_bytes: int
    arrived_seconds: float
    deadline_seconds: float


@dataclass(frozen=True)
class Go:
    """Run these requests of this group, together, now."""

    group: Hashable
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Wait:
    """Nothing yet; ask again after so long, or when a request comes."""

    seconds: float | None


@dataclass(frozen=True)
class Cost:
    """Seconds of a batch of n rows: `fixed_seconds + row_seconds * n`."""

    fixed_seconds: float
    row_seconds: float


class CostFit:
    """Least squares of duration over rows, on the last batches."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED_BATCHES)

    def add(self, rows: int, seconds: float) -> None:
        self._batches.append((rows, seconds))

    def cost(self) -> Cost:
        count = len(self._batches)
        if count == 0:
            return Cost(0.0, 0.0)
        mean_rows = sum(rows for rows, _ in self._batches) / count
        mean_seconds = sum(seconds for _, seconds in self._batches) / count
        spread = sum((rows - mean_rows) ** 2 for rows, _ in self._batches)
        if spread == 0:
            # One batch size tells nothing of the fixed part: assume none, so that nobody waits on a guess.
            return Cost(0.0, mean_seconds / mean_rows)
        slope = sum((rows - mean_rows) * (seconds - mean_seconds) for rows, seconds in self._batches) / spread
        slope = min(max(slope, 0.0), mean_seconds / mean_rows)
        return Cost(mean_seconds - slope * mean_rows, slope)


class ArrivalRate:
    """Rows per second over the last requests."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED_ARRIVALS)

    def add(self, now: float, rows: int) -> None:
        self._arrivals.append((now, rows))

    def rows_per_second(self, now: float) -> float:
        if len(self._arrivals) < 2:
            return 0.0
        span = now - self._arrivals[0][0]
        return sum(rows for _, rows in self._arrivals) / span if span > 0 else 0.0


def next_batch(
    queues: Mapping[Hashable, Sequence[Waiting]],
    *,
    now: float,
    max_rows: Mapping[Hashable, int],
    costs: Mapping[Hashable, Cost],
    rates: Mapping[Hashable, float],
    max_window_seconds: float,
) -> Go | Wait:
    """The group whose head has waited longest goes first, so that no stream and no model starves another.

    A batch that is not full waits while one more row is expected to save more than it costs: the launch it would
    otherwise need (`fixed_seconds`) against the delay of all rows already there (rows / arrival rate). It never waits
    beyond `max_window_seconds`, nor so long that its head would miss its deadline.
    """
    heads = sorted((queue[0].arrived_seconds, queue[0].number, group) for group, queue in queues.items() if queue)
    soonest: float | None = None
    for _, _, group in heads:
        batch, rows = fill(queues[group], max_rows[group])
        cost = costs.get(group, Cost(0.0, 0.0))
        wait = _worth_waiting(batch, rows, max_rows[group], cost, rates.get(group, 0.0), now, max_window_seconds)
        if wait <= 0:
            return Go(group, tuple(waiting.number for waiting in batch))
        soonest = wait if soonest is None else min(soonest, wait)
    return Wait(soonest)


def fill(queue: Sequence[Waiting], max_rows: int) -> tuple[list[Waiting], int]:
    """The longest run from the head that fits; the head always goes, however large."""
    batch, rows = [queue[0]], queue[0].rows
    for waiting in islice(queue, 1, None):
        if rows + waiting.rows > max_rows:
            break
        batch.append(waiting)
        rows += waiting.rows
    return batch, rows


def expired(queue: Sequence[Waiting], now: float) -> list[int]:
    """Requests whose deadline is gone: running them would be work for nobody."""
    return [waiting.number for waiting in queue if waiting.deadline_seconds <= now]


def _worth_waiting(
    batch: Sequence[Waiting], rows: int, max_rows: int, cost: Cost, rate: float, now: float, max_window_seconds: float
) -> float:
    """Seconds this batch may still wait; 0 means go."""
    if rows >= max_rows or rate <= 0 or rows / rate >= cost.fixed_seconds:
        return 0.0
    head = batch[0]
    run_seconds = cost.fixed_seconds + cost.row_seconds * max_rows
    latest = min(
        head.arrived_seconds + max_window_seconds,
        *(waiting.deadline_seconds - run_seconds for waiting in batch),
    )
    return max(0.0, latest - now)
