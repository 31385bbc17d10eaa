"""Placements: which operators of a configuration run in the pool and which on burst machines (supplement A.2).

Every way to divide the stateless operators is scored with the placement simulator: whole-segment offload, where the
compressed segment goes up and detections come down, beside the offload of single operators, whose inputs and results
cross the link. What another placement beats in everything is dropped. The paper searches with reinforcement learning;
pipelines here have a handful of operators, and all divisions of ten are simulated in well under a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from skyscraper.profile.schedule import Machines, Task, simulate

# 1,024 divisions; of more operators only those are tried whose inputs are offloaded with them.
_MOST_OPERATORS = 10


@dataclass(frozen=True)
class OperatorWork:
    """An operator: core-seconds per segment, whether it may run anywhere (stateless), bytes of its result, and the
    operators whose results it needs; None: the one before it, the first one the segment."""

    name: str
    core_seconds: float
    stateless: bool
    bytes_out: float
    after: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Burst:
    """What burst machines cost and how far they are."""

    usd_per_core_second: float
    round_trip_seconds: float
    uplink_bytes_per_second: float
    downlink_bytes_per_second: float


@dataclass(frozen=True)
class Placement:
    """Per segment: operators that run on burst machines, pool's core-seconds, dollars, bytes up and down, and the
    seconds until the result is back (0 where nothing leaves the pool)."""

    burst_operators: tuple[str, ...]
    pool_core_seconds: float
    usd: float
    bytes_up: float
    bytes_down: float
    latency_seconds: float


def placements(operators: Sequence[OperatorWork], segment_bytes: float, burst: Burst) -> list[Placement]:
    """All worth having, the one all in the pool first, then by what they leave the pool to do.

    Raises ValueError where an operator needs one that does not come before it.
    """
    needs = _needs(operators)
    machines = Machines(
        # A segment of a stream has one core of the pool, and its result is awaited.
        cores=1,
        round_trip_seconds=burst.round_trip_seconds,
        uplink_bytes_per_second=burst.uplink_bytes_per_second,
        downlink_bytes_per_second=burst.downlink_bytes_per_second,
    )
    found = [_score(operators, needs, away, segment_bytes, burst, machines) for away in _divisions(operators, needs)]
    kept = [one for one in found if not any(_beats(other, one) for other in found)]
    return sorted(kept, key=lambda one: (bool(one.burst_operators), -one.pool_core_seconds, one.usd))


def _needs(operators: Sequence[OperatorWork]) -> list[tuple[int, ...]]:
    """[P] of each operator the indexes of those it needs; none for one that reads the segment."""
    index = {one.name: number for number, one in enumerate(operators)}
    needs: list[tuple[int, ...]] = []
    for number, one in enumerate(operators):
        before = (operators[number - 1].name,) if one.after is None and number else one.after or ()
        if any(index.get(name, number) >= number for name in before):
            raise ValueError(f"operator {one.name} needs {', '.join(before)}: each must come before it")
        needs.append(tuple(index[name] for name in before))
    return needs


def _divisions(operators: Sequence[OperatorWork], needs: Sequence[tuple[int, ...]]) -> Iterator[frozenset[int]]:
    """Which operators may be away together, none included."""
    free = [number for number, one in enumerate(operators) if one.stateless]
    if len(free) <= _MOST_OPERATORS:
        for count in range(len(free) + 1):
            yield from map(frozenset, combinations(free, count))
        return
    away: set[int] = set()
    yield frozenset()
    for number in free:
        if all(one in away for one in needs[number]):
            away.add(number)
            yield frozenset(away)


def _score(
    operators: Sequence[OperatorWork],
    needs: Sequence[tuple[int, ...]],
    away: frozenset[int],
    segment_bytes: float,
    burst: Burst,
    machines: Machines,
) -> Placement:
    tasks = [
        Task(
            one.core_seconds,
            number in away,
            needs[number],
            segment_bytes=0.0 if needs[number] else segment_bytes,
            sends_bytes=one.bytes_out,
        )
        for number, one in enumerate(operators)
    ]
    ends = simulate(tasks, machines)
    up = down = 0.0
    for number, one in enumerate(operators):
        consumers = [other for other, before in enumerate(needs) if number in before]
        here = not consumers or any(other not in away for other in consumers)
        if number in away:
            up += 0.0 if needs[number] else segment_bytes
            down += one.bytes_out if here else 0.0
        elif any(other in away for other in consumers):
            up += one.bytes_out
    work = sum(operators[number].core_seconds for number in away)
    return Placement(
        tuple(one.name for number, one in enumerate(operators) if number in away),
        sum(one.core_seconds for number, one in enumerate(operators) if number not in away),
        work * burst.usd_per_core_second,
        up,
        down,
        max((ends[number] for number in away), default=0.0),
    )


def _beats(one: Placement, other: Placement) -> bool:
    """No worse in anything and better in something."""

    def cost(placement: Placement) -> tuple[float, ...]:
        return (
            placement.pool_core_seconds,
            placement.usd,
            placement.bytes_up,
            placement.bytes_down,
            placement.latency_seconds,
        )

    pairs = list(zip(cost(one), cost(other), strict=True))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)
