"""What a core-second of each pool costs now: a fixed price, a file, or a Prometheus query."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlencode

import structlog
from skyscraper.control.budget import NANO_PER_USD
from skyscraper.errors import SkyscraperError

from skyscraper_burst import metrics
from skyscraper_burst.config import PoolConfig, PriceConfig

log = structlog.get_logger()

_QUERY_SECONDS = 5.0
# A core-hour of any cloud is far below: what is above is a unit mistaken.
_DEAREST_USD_PER_CORE_HOUR = 100.0


class PriceUnreadable(SkyscraperError):
    """The source says nothing that is a price."""


class Prices:
    """By pool, in nano-dollars per core-second. `refresh` in a loop; `of` answers from memory."""

    def __init__(
        self, pools: Sequence[PoolConfig], config: PriceConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._config = config
        self._clock = clock
        self._read: dict[str, tuple[float, float]] = {}
        for name in self._pools:
            metrics.PRICE.labels(name).set(self._usd_per_core_hour(name))

    def of(self, pool: str) -> int:
        return max(1, round(self._usd_per_core_hour(pool) / 3600 * NANO_PER_USD))

    async def run(self) -> None:
        followed = [one for one in self._pools.values() if one.price_file is not None or one.price_query is not None]
        while followed:
            for pool in followed:
                await self.refresh(pool)
            await asyncio.sleep(self._config.refresh_seconds)

    async def refresh(self, pool: PoolConfig) -> None:
        """Read one pool's source again. What cannot be read is counted, and the last price holds until it is stale."""
        try:
            found = await asyncio.to_thread(read_price, pool, self._config.prometheus_url)
        except PriceUnreadable as error:
            metrics.PRICE_FAILURES.labels(pool.name, "file" if pool.price_file else "query").inc()
            log.warning("price_unreadable", pool=pool.name, error=str(error))
        else:
            self._read[pool.name] = (found, self._clock())
        metrics.PRICE.labels(pool.name).set(self._usd_per_core_hour(pool.name))

    def _usd_per_core_hour(self, name: str) -> float:
        known = self._read.get(name)
        if known is not None and self._clock() - known[1] <= self._config.stale_seconds:
            return known[0]
        return self._pools[name].usd_per_core_hour


def read_price(pool: PoolConfig, prometheus_url: str | None) -> float:
    """Dollars per core-hour from the pool's file or query. Raises PriceUnreadable."""
    if pool.price_file is not None:
        return _from_file(pool.price_file)
    return _from_prometheus(prometheus_url or "", pool.price_query or "")


def _from_file(path: Path) -> float:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PriceUnreadable(f"the price file {path} cannot be read: {error.strerror}") from error
    lines = text.split("\n", 1)
    return _price(lines[0].strip(), f"the first line of {path}")


def _from_prometheus(base: str, query: str) -> float:
    url = f"{base.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=_QUERY_SECONDS) as answer:  # noqa: S310 - the scheme is checked
            data = json.load(answer)["data"]
            value = data["result"] if data["resultType"] == "scalar" else data["result"][0]["value"]
            return _price(value[1], f"the answer to {query}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise PriceUnreadable(f"Prometheus at {base} gives no price for {query}: {error!r}") from error


def _price(text: str, where: str) -> float:
    try:
        price = float(text)
    except ValueError as error:
        raise PriceUnreadable(f"{where} is {text!r:.40}, not a number") from error
    if not 0 < price <= _DEAREST_USD_PER_CORE_HOUR:
        raise PriceUnreadable(f"{where} is {price:g} USD per core-hour; expected 0 to {_DEAREST_USD_PER_CORE_HOUR:g}")
    return price
