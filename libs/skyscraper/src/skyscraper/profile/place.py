"""Placements: which operators of a configuration run in the pool and which on burst machines (supplement A.2).

Whole segments are offloaded at cuts of the operator chain: everything stateless up to the cut runs elsewhere. What the
cut sends up and gets back, and the price of the work, make its cost; placements that another one beats are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorWork:
    """An operator of the chain in order: core-seconds per segment, and whether it may run anywhere (stateless)."""

    name: str
    core_seconds: float
    stateless: bool
    bytes_out: float


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
    """All worth having, from all in the pool to as much as possible elsewhere."""
    found = [Placement((), sum(one.core_seconds for one in operators), 0.0, 0.0, 0.0, 0.0)]
    away: list[OperatorWork] = []
    for operator in operators:
        if not operator.stateless:
            break
        away.append(operator)
        work = sum(one.core_seconds for one in away)
        # The compressed segment goes up, once; what the last operator makes of it comes back.
        down = operator.bytes_out
        latency = (
            burst.round_trip_seconds
            + work
            + segment_bytes / burst.uplink_bytes_per_second
            + down / burst.downlink_bytes_per_second
        )
        pool = sum(one.core_seconds for one in operators[len(away) :])
        names = tuple(one.name for one in away)
        found.append(Placement(names, pool, work * burst.usd_per_core_second, segment_bytes, down, latency))
    return [one for one in found if not any(_beats(other, one) for other in found)]


def _beats(one: Placement, other: Placement) -> bool:
    """No worse in anything and better in something."""

    def cost(placement: Placement) -> tuple[float, ...]:
        moved = placement.bytes_up + placement.bytes_down
        return placement.pool_core_seconds, placement.usd, moved, placement.latency_seconds

    pairs = list(zip(cost(one), cost(other), strict=True))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)
