"""The link, waited for: `enter` returns when a request may be sent. One event loop."""

from __future__ import annotations

import asyncio
import time

from skyscraper.control.bandwidth import Link, TokenBucket

from skyscraper_burst.config import LinkConfig


class Gate:
    """Without limits nobody waits, and nothing is kept."""

    def __init__(self, config: LinkConfig) -> None:
        up, down = config.uplink_bytes_per_second, config.downlink_bytes_per_second
        self._limited = up is not None or down is not None
        self._link = Link(
            TokenBucket(up or float("inf"), config.burst_bytes), TokenBucket(down or float("inf"), config.burst_bytes)
        )
        self._entering: dict[int, asyncio.Future[None]] = {}
        self._turn: asyncio.TimerHandle | None = None

    @property
    def wait_seconds(self) -> float:
        """That a request which comes now would wait, about."""
        return self._link.wait_seconds(time.monotonic()) if self._limited else 0.0

    async def enter(self, *, bid_per_byte: float, up_bytes: float, down_bytes: float, deadline_seconds: float) -> None:
        """Raises TimeoutError where the link is not free before `deadline_seconds` (monotonic clock)."""
        if not self._limited:
            return
        number = self._link.join(bid_per_byte=bid_per_byte, up_bytes=up_bytes, down_bytes=down_bytes)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._entering[number] = future
        self._grant()
        try:
            async with asyncio.timeout(deadline_seconds - time.monotonic()):
                await future
        finally:
            if self._entering.pop(number, None) is not None:
                self._link.leave(number)

    def received(self, more_bytes: float) -> None:
        """An answer was so much larger than expected."""
        if self._limited:
            self._link.received(more_bytes, time.monotonic())

    def _grant(self) -> None:
        now = time.monotonic()
        for number in self._link.granted(now):
            future = self._entering.pop(number)
            if not future.done():
                future.set_result(None)
        if self._entering and self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(self._link.next_seconds(now), self._next)

    def _next(self) -> None:
        self._turn = None
        self._grant()
