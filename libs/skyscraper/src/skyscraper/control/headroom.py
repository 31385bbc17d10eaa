"""Headroom: how long until Kafka's retention would delete the oldest segment that is not processed yet.

Kafka deletes whole log segments (files of up to `segment.bytes`), from the oldest on, at every check:

* by bytes, while what would remain still has `retention.bytes`. A record therefore goes only when so many bytes were
  written *after* it; with 8 MiB files a partition of 32 MiB was measured to hold 33 to 44 MiB.
* by time, when the newest record of the file, not the oldest, is older than `retention.ms`; a file before it that must
  stay keeps it as well.

Both keep more than they promise. What they promise is the *guaranteed* headroom, on which the guard and the alerts
rely; by when a record is gone at the latest adds one log segment and one check. Nothing here waits or asks Kafka: see
`skyscraper.bus.headroom`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from skyscraper.control.units import buffer_seconds

# Kafka's defaults of segment.bytes and log.retention.check.interval.ms.
_LOG_SEGMENT_BYTES = 1 << 30
DEFAULT_CHECK_SECONDS = 300.0

# A stretch of video long enough that one keyframe more or less does not make it dense.
_STRETCH_SECONDS = 60.0
# The content's day: dense hours come back within it.
_REMEMBERED_SECONDS = 86_400.0


@dataclass(frozen=True)
class Retention:
    """The buffer's limits, per partition; None is no limit."""

    seconds: float | None
    bytes_per_partition: int | None
    log_segment_bytes: int = _LOG_SEGMENT_BYTES
    """Largest file of the log: the grain of deletion."""
    check_seconds: float = DEFAULT_CHECK_SECONDS
    """Time between two checks of the broker."""


@dataclass(frozen=True)
class Backlog:
    """A stream's unprocessed segments. `oldest_age_seconds` since Kafka took the oldest; 0 without a backlog."""

    oldest_age_seconds: float
    size_bytes: int
    bytes_per_second: float
    """Rate at which the stream is being published; for a guarantee, the densest that may come."""


@dataclass(frozen=True)
class Headroom:
    """When retention deletes the oldest unprocessed segment if nothing were processed from now on."""

    guaranteed_seconds: float
    """Not before; infinite without limits, never negative."""
    latest_seconds: float
    """Gone by then, at a steady rate."""
    limited_by: str
    """The limit that comes first: `time`, `bytes`, or `nothing`."""


def headroom(backlog: Backlog, retention: Retention) -> Headroom:
    """Guaranteed and latest: the truth lies between them.

    The guarantee holds if `size_bytes` and `bytes_per_second` are no less than what Kafka stores and will be sent, and
    retention is not made shorter meanwhile. The age is by the broker's clock.
    """
    infinite = float("inf")
    by_time = by_bytes = infinite
    grain = buffer_seconds(retention.log_segment_bytes, backlog.bytes_per_second)
    late = infinite
    if retention.seconds is not None:
        by_time = max(0.0, retention.seconds - backlog.oldest_age_seconds)
        # The newest record of its file comes at most a full file later; of a silent stream it came before now.
        reach = grain if backlog.bytes_per_second > 0 else backlog.oldest_age_seconds
        late = max(0.0, retention.seconds - backlog.oldest_age_seconds + reach)
    if retention.bytes_per_partition is not None and backlog.bytes_per_second > 0:
        left = retention.bytes_per_partition - backlog.size_bytes
        by_bytes = max(0.0, left / backlog.bytes_per_second)
        late = min(late, max(0.0, (left + retention.log_segment_bytes) / backlog.bytes_per_second))
    guaranteed = min(by_time, by_bytes)
    word = "nothing" if guaranteed == infinite else "time" if by_time <= by_bytes else "bytes"
    return Headroom(guaranteed, late + retention.check_seconds, word)


def headroom_seconds(backlog: Backlog, retention: Retention) -> float:
    """Seconds in which nothing is deleted, whatever Kafka's files look like (see `Headroom.guaranteed_seconds`)."""
    return headroom(backlog, retention).guaranteed_seconds


def limit_seconds(retention: Retention, bytes_per_second_densest: float, safety: float) -> float:
    """The largest lag that the buffer can hold, for the guard; infinite without limits.

    `safety`: the part of the buffer to use, in (0,1]; the rest is for what estimates miss. Raises ValueError.
    """
    if not 0 < safety <= 1:
        raise ValueError(f"safety is {safety:g}: the part of the buffer to use is more than 0 and at most 1")
    by_time = float("inf") if retention.seconds is None else retention.seconds
    size = retention.bytes_per_partition
    by_bytes = float("inf") if size is None else buffer_seconds(size, bytes_per_second_densest)
    return safety * min(by_time, by_bytes)


class Density:
    """Bytes per second of video of one stream: the mean of the last minute, and the densest minute of the last day.

    Kept as one number per minute of video, and only those that are denser than everything after them: a few hundred
    at most.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0
        self._position = 0.0
        # (seconds of video at its end, bytes per second), densities falling.
        self._dense: deque[tuple[float, float]] = deque()
        self._last: float | None = None

    def add(self, size_bytes: int, duration_seconds: float) -> None:
        """Take in one segment, with its headers and key: what Kafka stores of it."""
        if duration_seconds <= 0:
            return
        self._bytes += size_bytes
        self._seconds += duration_seconds
        self._position += duration_seconds
        if self._seconds < _STRETCH_SECONDS:
            return
        self._last = self._bytes / self._seconds
        self._bytes, self._seconds = 0, 0.0
        while self._dense and self._dense[-1][1] <= self._last:
            self._dense.pop()
        self._dense.append((self._position, self._last))
        while self._dense[0][0] < self._position - _REMEMBERED_SECONDS:
            self._dense.popleft()

    @property
    def now(self) -> float:
        """Bytes per second of the last full minute; of what there is, before the first; 0 of nothing."""
        if self._last is not None:
            return self._last
        return self._bytes / self._seconds if self._seconds > 0 else 0.0

    @property
    def densest(self) -> float:
        return max(self.now, self._dense[0][1]) if self._dense else self.now
