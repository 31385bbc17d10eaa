"""The link to the burst pool: uplink and downlink as token buckets, given to who bids most (the paper's occupancy).

The paper's simulator lets every transfer occupy the link in full for as long as its bytes take (supplement M.1). This
is the same, online: a bucket holds at most `burst_bytes`, so a link that was idle does not save up more than that.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field


@dataclass
class TokenBucket:
    """bytes_per_second: infinite for no limit. A take may overdraw it: whoever comes next waits until it is filled."""

    bytes_per_second: float
    burst_bytes: float
    _tokens: float = field(init=False)
    _at_seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = self.burst_bytes

    def take(self, size_bytes: float, now_seconds: float) -> None:
        self._fill(now_seconds)
        self._tokens -= size_bytes

    def wait_seconds(self, now_seconds: float) -> float:
        """Until the bucket is no longer overdrawn."""
        self._fill(now_seconds)
        return max(0.0, -self._tokens / self.bytes_per_second)

    def _fill(self, now_seconds: float) -> None:
        passed = max(0.0, now_seconds - self._at_seconds)
        if passed:
            self._tokens = min(self.burst_bytes, self._tokens + passed * self.bytes_per_second)
        self._at_seconds = max(now_seconds, self._at_seconds)


@dataclass(frozen=True, order=True)
class _Place:
    """Who bids more per byte is first; of equal bids, who came first."""

    minus_bid: float
    number: int
    size_bytes: float = field(compare=False)
    expected_down_bytes: float = field(compare=False)


class Link:
    """Who may send next. Pure: the caller keeps the clock and waits."""

    def __init__(self, up: TokenBucket, down: TokenBucket) -> None:
        self._up = up
        self._down = down
        self._waiting: list[_Place] = []
        self._gone: set[int] = set()
        self._next = 0
        self.waiting_bytes = 0.0

    def join(self, *, bid_per_byte: float, up_bytes: float, down_bytes: float) -> int:
        """A number to ask `granted` for. `bid_per_byte`: what sending is worth, in the unit of all bidders."""
        self._next += 1
        heapq.heappush(self._waiting, _Place(-bid_per_byte, self._next, up_bytes, down_bytes))
        self.waiting_bytes += up_bytes
        return self._next

    def leave(self, number: int) -> None:
        """Who joined and will not send after all."""
        self._gone.add(number)

    def granted(self, now_seconds: float) -> list[int]:
        """Who may send now, in order; takes their bytes. Both directions are taken at once: an answer that finds the
        downlink occupied would hold a machine that costs money."""
        found = []
        while self._waiting and not self._busy(now_seconds):
            place = heapq.heappop(self._waiting)
            self.waiting_bytes -= place.size_bytes
            if place.number in self._gone:
                self._gone.discard(place.number)
                continue
            self._up.take(place.size_bytes, now_seconds)
            self._down.take(place.expected_down_bytes, now_seconds)
            found.append(place.number)
        return found

    def received(self, more_bytes: float, now_seconds: float) -> None:
        """An answer was larger than expected by so much (or smaller, then negative)."""
        self._down.take(more_bytes, now_seconds)

    def next_seconds(self, now_seconds: float) -> float:
        """Until `granted` should be asked again."""
        return max(self._up.wait_seconds(now_seconds), self._down.wait_seconds(now_seconds))

    def wait_seconds(self, now_seconds: float) -> float:
        """About how long who joins now with an average bid waits."""
        return self.next_seconds(now_seconds) + self.waiting_bytes / self._up.bytes_per_second

    def _busy(self, now_seconds: float) -> bool:
        # Rounding must not make a full second of nothing.
        return self.next_seconds(now_seconds) > 1e-9
