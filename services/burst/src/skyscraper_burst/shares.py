"""What waits for each pool, followed from turn to turn: KEDA is told this."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from skyscraper.control.cascade import PoolCapacity, cascade, is_short

from skyscraper_burst import metrics
from skyscraper_burst.config import PoolConfig

log = structlog.get_logger()

# A pool that has been short for so many of its cold starts has nothing more to give: once is an ordinary start.
_COLD_STARTS = 2.0


class Shares:
    """One thread. `update` every turn; `core_seconds` answers from memory."""

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        *,
        price: Callable[[str], int],
        ready: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """price: nano-dollars per core-second of a pool; ready: its machines that are."""
        self._pools = {pool.name: pool for pool in pools}
        self._price = price
        self._ready = ready
        self._clock = clock
        self._short_since: dict[str, float] = {}
        self._late: set[str] = set()
        self._shares = dict.fromkeys(self._pools, 0.0)

    def update(self, waiting_core_seconds: float) -> None:
        now = self._clock()
        capacities = [self._capacity(pool, now) for pool in self._pools.values()]
        self._tell_late({one.name for one in capacities if one.late})
        self._shares = cascade(waiting_core_seconds, capacities)
        for one in capacities:
            share = self._shares[one.name]
            metrics.POOL_WAITING_CORE_SECONDS.labels(one.name).set(share)
            if is_short(share, one):
                self._short_since.setdefault(one.name, now)
            else:
                self._short_since.pop(one.name, None)

    def pool(self, name: str | None) -> PoolConfig | None:
        """Of that name; the only one where none is named."""
        if name is None and len(self._pools) == 1:
            return next(iter(self._pools.values()))
        return self._pools.get(name or "")

    def core_seconds(self, pool: str) -> float:
        return self._shares[pool]

    def _capacity(self, pool: PoolConfig, now: float) -> PoolCapacity:
        since = self._short_since.get(pool.name, now)
        return PoolCapacity(
            name=pool.name,
            nano_usd_per_core_second=self._price(pool.name),
            core_seconds_per_machine=pool.core_seconds_per_machine,
            most_machines=pool.most_machines,
            ready_machines=self._ready(pool.name),
            late=now - since > _COLD_STARTS * pool.cold_start_seconds,
        )

    def _tell_late(self, late: set[str]) -> None:
        for name in late - self._late:
            log.warning("pool_gets_no_machines", pool=name, doing="the next dearer pool is asked as well")
        self._late = late
