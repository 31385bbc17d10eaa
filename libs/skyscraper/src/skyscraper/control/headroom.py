"""Headroom: how long until Kafka's retention would delete the oldest segment that is not processed yet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Retention:
    """The buffer's limits, per partition; None is no limit."""

    seconds: float | None
    bytes_per_partition: int | None


@dataclass(frozen=True)
class Backlog:
    """A stream's unprocessed segments. `oldest_age_seconds` since Kafka took the oldest; 0 without a backlog."""

    oldest_age_seconds: float
    size_bytes: int
    bytes_per_second: float
    """Rate at which the stream is being published."""


def headroom_seconds(backlog: Backlog, retention: Retention) -> float:
    """Seconds until the first unprocessed segment would be deleted if nothing were processed from now on.

    Retention by time deletes the oldest when it reaches the limit's age; retention by bytes when what was published
    after it fills the limit. Infinite without limits; never negative.
    """
    by_time = float("inf") if retention.seconds is None else retention.seconds - backlog.oldest_age_seconds
    by_bytes = float("inf")
    if retention.bytes_per_partition is not None and backlog.bytes_per_second > 0:
        by_bytes = (retention.bytes_per_partition - backlog.size_bytes) / backlog.bytes_per_second
    return max(0.0, min(by_time, by_bytes))
