"""Messages that are no rows: into sky.dead-letters with their reason, before the offset moves past them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, Message, Producer
from skyscraper.bus import topics
from skyscraper.bus.errors import BusTimeout
from skyscraper.lakehouse.errors import BadRow

from skyscraper_loader import metrics

log = structlog.get_logger()

_FLUSH_SECONDS = 30.0
_DETAIL_CHARACTERS = 500
# Key and headers must fit beside the value.
_MAX_VALUE_BYTES = topics.MAX_SEGMENT_BYTES
_MAX_KEY_BYTES = 1024
# One line per fault tells the story; a producer that writes only garbage must not fill the log.
_LOG_SECONDS = 1.0


class Rejects:
    """A kill between writing a reject and committing its batch writes it again: `sky_topic`, `sky_partition` and
    `sky_offset` in its headers tell such copies apart."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._producer = Producer({**client, "enable.idempotence": True, "message.max.bytes": topics.MAX_MESSAGE_BYTES})
        # Bounded by the batch that they belong to. Kept until Kafka has them: a delivery may fail long after `add`.
        self._open: dict[tuple[str, int, int], dict[str, Any]] = {}
        self._failed: dict[tuple[str, int, int], str] = {}
        self._next_log = 0.0

    def add(self, message: Message, error: BadRow) -> None:
        place = (message.topic() or "", message.partition() or 0, message.offset() or 0)
        metrics.REJECTED.labels(error.reason).inc()
        if time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + _LOG_SECONDS
            log.warning("row_rejected", topic=place[0], offset=place[2], reason=error.reason, error=str(error))
        value = message.value() or b""
        told = {
            "sky_reason": error.reason,
            "sky_detail": str(error)[:_DETAIL_CHARACTERS],
            "sky_topic": place[0],
            "sky_partition": str(place[1]),
            "sky_offset": str(place[2]),
        }
        if len(value) > _MAX_VALUE_BYTES:
            told["sky_value_bytes"] = str(len(value))
        self._open[place] = {
            "value": value[:_MAX_VALUE_BYTES],
            "key": (message.key() or b"")[:_MAX_KEY_BYTES],
            "headers": [(name, text.encode()) for name, text in told.items()],
        }
        self._send(place)

    def flush(self) -> None:
        """Raises BusTimeout where Kafka has not taken all of them; the next call sends them again."""
        if not self._open:
            return
        for place in list(self._failed):
            del self._failed[place]
            if place in self._open:
                self._send(place)
        self._producer.flush(_FLUSH_SECONDS)
        if self._open:
            reason = next(iter(self._failed.values()), "no answer")
            raise BusTimeout(f"{len(self._open)} rejected rows cannot be written to {topics.DEAD_LETTERS}: {reason}")

    def _send(self, place: tuple[str, int, int]) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self._open.pop(place, None)
            elif place in self._open:
                self._failed[place] = error.str()

        try:
            self._producer.produce(topics.DEAD_LETTERS, **self._open[place], on_delivery=delivered)
        except BufferError:
            # The producer's queue is full: `flush` tries again, when it has drained.
            self._failed[place] = "the producer's queue is full"
        self._producer.poll(0)
