"""What a message of sky.segments says beside its value."""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from skyscraper.bus.headers import Headers


def headers_of(message: Message) -> Headers:
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return [(name, value) for name, value in headers if isinstance(value, bytes)]


def arrived_seconds(message: Message, now_seconds: float) -> float:
    """When it arrived in Kafka, on this process's monotonic clock. The record's own timestamp, by which retention
    deletes it too; never later than `now_seconds` (a publisher's clock may run ahead)."""
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return now_seconds
    return now_seconds - max(0.0, time.time() - milliseconds / 1000)
