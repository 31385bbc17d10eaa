"""The paper's placement simulator (supplement M.1): how long a graph of tasks takes on so many cores, a link and burst
machines.

List scheduling: of the tasks whose inputs are there, the one that had them first goes next, on the core that is free
first. A transfer occupies its direction of the link in full for as long as its bytes take. Beyond the paper, burst
machines may be few, and what one task makes crosses the link once, however many tasks want it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

_INFINITE = float("inf")


@dataclass(frozen=True)
class Task:
    """One operator on one segment. `after`: indexes of the tasks whose results it needs. `segment_bytes`: of the
    segment where it reads that itself; `sends_bytes` of its result."""

    core_seconds: float
    burst: bool
    after: tuple[int, ...] = ()
    segment_bytes: float = 0.0
    sends_bytes: float = 0.0
    begins_seconds: float = 0.0
    """Its segment is not there before."""


@dataclass(frozen=True)
class Machines:
    """The pool's cores, the link, and the burst machines' cores (None: as many as are wanted)."""

    cores: int
    burst_cores: int | None = None
    round_trip_seconds: float = 0.0
    uplink_bytes_per_second: float = _INFINITE
    downlink_bytes_per_second: float = _INFINITE


@dataclass
class _Run:
    """What is occupied until when."""

    machines: Machines
    cores: list[float] = field(default_factory=list)
    burst_cores: list[float] | None = None
    uplink_seconds: float = 0.0
    downlink_seconds: float = 0.0

    def send(self, at_seconds: float, size_bytes: float) -> float:
        """When it is there."""
        begins = max(at_seconds, self.uplink_seconds)
        self.uplink_seconds = begins + size_bytes / self.machines.uplink_bytes_per_second
        return self.uplink_seconds + self.machines.round_trip_seconds / 2

    def fetch(self, at_seconds: float, size_bytes: float) -> float:
        begins = max(at_seconds, self.downlink_seconds)
        self.downlink_seconds = begins + size_bytes / self.machines.downlink_bytes_per_second
        return self.downlink_seconds + self.machines.round_trip_seconds / 2

    def work(self, task: Task, ready_seconds: float) -> float:
        cores = self.burst_cores if task.burst else self.cores
        if cores is None:
            return ready_seconds + task.core_seconds
        end = max(heapq.heappop(cores), ready_seconds) + task.core_seconds
        heapq.heappush(cores, end)
        return end


def simulate(tasks: Sequence[Task], machines: Machines) -> list[float]:
    """[T] seconds at which each task's result is in the pool, or, of one that only burst tasks need, made.

    Tasks come in an order in which each is behind those it needs. Raises ValueError otherwise.
    """
    for index, task in enumerate(tasks):
        if any(not 0 <= one < index for one in task.after):
            raise ValueError(f"task {index} needs tasks {task.after}: each must come before it")
    run = _Run(machines, [0.0] * machines.cores)
    if machines.burst_cores is not None:
        run.burst_cores = [0.0] * machines.burst_cores
    needed_by: list[list[int]] = [[] for _ in tasks]
    for index, task in enumerate(tasks):
        for one in task.after:
            needed_by[one].append(index)
    missing = [len(task.after) for task in tasks]
    ready = [task.begins_seconds for task in tasks]
    queue = [(ready[index], index) for index in range(len(tasks)) if not missing[index]]
    heapq.heapify(queue)
    ends = [0.0] * len(tasks)
    while queue:
        at, index = heapq.heappop(queue)
        task = tasks[index]
        if task.burst and task.segment_bytes:
            at = run.send(at, task.segment_bytes)
        made = run.work(task, at)
        crossed: float | None = None
        wanted_here = not needed_by[index] or any(not tasks[one].burst for one in needed_by[index])
        wanted_there = any(tasks[one].burst for one in needed_by[index])
        if task.burst and wanted_here:
            crossed = run.fetch(made, task.sends_bytes)
        elif not task.burst and wanted_there:
            crossed = run.send(made, task.sends_bytes)
        ends[index] = crossed if task.burst and crossed is not None else made
        for one in needed_by[index]:
            there = made if tasks[one].burst == task.burst or crossed is None else crossed
            ready[one] = max(ready[one], there)
            missing[one] -= 1
            if not missing[one]:
                heapq.heappush(queue, (ready[one], one))
    return ends
