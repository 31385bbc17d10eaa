"""Which burst pool is wanted for the work that waits: the cheapest first, and what it cannot take the next dearer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PoolCapacity:
    """A pool at one moment. Core-seconds are what its machines are wanted for, so many for each."""

    name: str
    nano_usd_per_core_second: int
    core_seconds_per_machine: float
    most_machines: int | None
    ready_machines: int
    late: bool = False
    """Wanted machines have not come in the time that they take: there are none to be had now."""

    @property
    def most_core_seconds(self) -> float:
        return math.inf if self.most_machines is None else self.most_machines * self.core_seconds_per_machine

    @property
    def ready_core_seconds(self) -> float:
        return self.ready_machines * self.core_seconds_per_machine


def cascade(waiting_core_seconds: float, pools: Sequence[PoolCapacity]) -> dict[str, float]:
    """Core-seconds of each pool, by name.

    A pool that is late keeps what it was wanted for, so that its machines are taken when they come; but all that its
    ready ones do not take goes to the next pool as well. Pools of one price are filled in the order given.
    """
    left = waiting_core_seconds
    shares: dict[str, float] = {}
    for pool in sorted(pools, key=lambda one: one.nano_usd_per_core_second):
        share = min(left, pool.most_core_seconds)
        shares[pool.name] = share
        left -= min(share, pool.ready_core_seconds) if pool.late else share
    return shares


def is_short(share_core_seconds: float, pool: PoolCapacity) -> bool:
    """Whether at least one whole machine more is wanted than is ready. Autoscalers leave less than that alone (the HPA
    tolerates a tenth), and one that is wanted at all counts as whole."""
    if pool.ready_machines == 0:
        return share_core_seconds > 0
    return share_core_seconds - pool.ready_core_seconds >= pool.core_seconds_per_machine
