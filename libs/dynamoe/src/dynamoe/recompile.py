"""Change the plan of a running layer: decide, build in the background, swap between two steps.

Once per step the layer hands over its score. The trigger sees the score of `launch_ahead` steps ago, so that nothing
waits for a device to finish the step that has just been launched. What a new plan needs is built by another thread
while the old plan goes on running; the swap itself is one assignment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dynamoe.plan import Plan

# Weight of the newest step in the running means, as in the paper: a hundred steps of memory.
_NEWEST = 0.01


@dataclass(frozen=True)
class Observation:
    """What one step showed. Tensors are complete once `arrived`."""

    rows: int
    k: int
    counts: Sequence[int] | Tensor
    """Assignments per expert, dropped ones included."""
    dropped: int | Tensor = 0
    unchanged: float | None = None
    """Share of the rows whose set of k experts is that of the previous epoch; None where no cache is kept."""
    arrived: torch.cuda.Event | None = None


def observe_on_device(rows: int, k: int, counts: Tensor, dropped: Tensor | None) -> Observation:
    """An observation whose numbers lie on a device. On CUDA their copies to the host begin here, so that reading them
    some steps later waits for this step and not for all that was launched since."""
    told = torch.cat([counts, (counts.new_zeros(()) if dropped is None else dropped).view(1)])
    if not told.is_cuda or torch.cuda.is_current_stream_capturing():
        return Observation(rows, k, told[:-1], told[-1])
    host = torch.empty(told.shape, dtype=told.dtype, pin_memory=True)
    host.copy_(told, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return Observation(rows, k, host[:-1], host[-1], arrived=arrived)


@dataclass(frozen=True)
class Score:
    """What a decision is made on."""

    step: int
    rows: int
    k: int
    counts: tuple[int, ...]
    needed: tuple[float, ...]
    """For every expert the running mean of the smallest alpha that drops nothing; their maximum is the global one."""
    needed_now: tuple[float, ...]
    """The same of this step alone."""
    unchanged: float
    """Running mean, from 0 on the first step, of the share of rows whose experts did not change."""
    dropped: int
    steps_since_change: int
    mean_rows: float
    """Running mean of the steps' rows."""


@dataclass(frozen=True)
class Change:
    """A decision."""

    plan: Plan
    reason: str


@dataclass(frozen=True)
class Recompile:
    """When to change the plan, and to what. Both are functions of their arguments alone."""

    trigger: Callable[[Plan, Score], bool]
    alter: Callable[[Plan, Score], Change | None]
    launch_ahead: int = 1
    """How many steps old the score is that decides."""


@dataclass(frozen=True)
class Event:
    """One recompilation, or one that failed."""

    step: int
    reason: str
    old: Plan
    new: Plan
    build_seconds: float
    swap_seconds: float
    error: str = ""
    """Why the plan could not be built; the old one then stays."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "reason": self.reason,
            "old": self.old.to_dict(),
            "new": self.new.to_dict(),
            "build_seconds": self.build_seconds,
            "swap_seconds": self.swap_seconds,
            "error": self.error,
        }


class Built(Protocol):
    """A plan with all that it needs, ready to be put in place."""

    @property
    def plan(self) -> Plan: ...


def next_score(previous: Score | None, seen: Observation) -> Score:
    """The score after one more step."""
    if seen.arrived is not None:
        seen.arrived.synchronize()
    counts = tuple(int(count) for count in (seen.counts.tolist() if isinstance(seen.counts, Tensor) else seen.counts))
    dropped = int(seen.dropped)
    scale = len(counts) / max(1, seen.k * seen.rows)
    now = tuple(count * scale for count in counts)
    before = 0.0 if previous is None else previous.unchanged
    # A step in which the gate did not run says nothing about its choice.
    unchanged = before if seen.unchanged is None else (1 - _NEWEST) * before + _NEWEST * seen.unchanged
    if previous is None:
        # The mean of the needed alphas starts at the first step's; that of the cache starts at zero, as in the paper.
        return Score(0, seen.rows, seen.k, counts, now, now, unchanged, dropped, 0, float(seen.rows))
    mean = tuple((1 - _NEWEST) * old + _NEWEST * new for old, new in zip(previous.needed, now, strict=True))
    return Score(
        step=previous.step + 1,
        rows=seen.rows,
        k=seen.k,
        counts=counts,
        needed=mean,
        needed_now=now,
        unchanged=unchanged,
        dropped=dropped,
        steps_since_change=previous.steps_since_change + 1,
        mean_rows=(1 - _NEWEST) * previous.mean_rows + _NEWEST * seen.rows,
    )


class Recompiler:
    """Runs one layer's `Recompile`. Not thread-safe: one loop calls `step`."""

    def __init__(
        self,
        recompile: Recompile,
        build: Callable[[Plan], Built],
        swap: Callable[[Built], None],
        *,
        clock: Callable[[], float] = time.perf_counter,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.score: Score | None = None
        self._recompile = recompile
        self._build = build
        self._swap = swap
        self._clock = clock
        self._on_event = on_event
        self._seen: deque[Observation] = deque()
        self._building: _Building | None = None

    def step(self, plan: Plan, seen: Observation) -> Event | None:
        """Take in a step that ran with `plan`. Returns the event where a new plan was put in place, or failed to."""
        self._seen.append(seen)
        if len(self._seen) <= self._recompile.launch_ahead:
            return None
        self.score = next_score(self.score, self._seen.popleft())
        if self._building is not None:
            return self._finish(plan, self.score.step) if self._building.done.is_set() else None
        if self._recompile.trigger(plan, self.score):
            change = self._recompile.alter(plan, self.score)
            if change is not None and change.plan != plan:
                self._building = _Building(change, self._build, self._clock)
        return None

    def wait(self, plan: Plan, *, timeout_seconds: float) -> Event | None:
        """Put a plan that is being built in place now, waiting for it at most so long. For tests and for shutdown."""
        if self._building is None or not self._building.done.wait(timeout_seconds):
            return None
        return self._finish(plan, 0 if self.score is None else self.score.step)

    def _finish(self, plan: Plan, step: int) -> Event:
        building, self._building = self._building, None
        assert building is not None  # noqa: S101 - both callers have looked
        started = self._clock()
        if building.built is not None:
            self._swap(building.built)
        event = Event(
            step=step,
            reason=building.change.reason,
            old=plan,
            new=building.change.plan,
            build_seconds=building.seconds,
            swap_seconds=self._clock() - started,
            error=building.error,
        )
        # A plan that cannot be built counts as a change too: its policy then waits before it asks again.
        if self.score is not None:
            self.score = replace(self.score, steps_since_change=0)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
        return event


class _Building:
    def __init__(self, change: Change, build: Callable[[Plan], Built], clock: Callable[[], float]) -> None:
        self.change = change
        self.built: Built | None = None
        self.error = ""
        self.seconds = 0.0
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(build, clock), name="dynamoe-plan", daemon=True).start()

    def _run(self, build: Callable[[Plan], Built], clock: Callable[[], float]) -> None:
        started = clock()
        try:
            self.built = build(self.change.plan)
        except Exception as error:  # noqa: BLE001 - told in the event; the layer goes on with the plan it has
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = clock() - started
        self.done.set()
