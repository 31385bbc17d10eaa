"""Messages that are no rows: into sky.dead-letters with their reason, before the offset moves past them."""

from __future__ import annotations

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


class Rejects:
    """A kill between writing a reject and committing its batch writes it again: `sky_topic`, `sky_partition` and
    `sky_offset` in its headers tell such copies apart."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._producer = Producer({**client, "enable.idempotence": True, "message.max.bytes": topics.MAX_MESSAGE_BYTES})
        self._failed: list[str] = []
        self._open = False

    def add(self, message: Message, error: BadRow) -> None:
        metrics.REJECTED.labels(error.reason).inc()
        log.warning(
            "row_rejected", topic=message.topic(), offset=message.offset(), reason=error.reason, error=str(error)
        )
        told = {
            "sky_reason": error.reason,
            "sky_detail": str(error)[:_DETAIL_CHARACTERS],
            "sky_topic": message.topic() or "",
            "sky_partition": str(message.partition()),
            "sky_offset": str(message.offset()),
        }
        self._open = True
        self._producer.produce(
            topics.DEAD_LETTERS,
            value=message.value() or b"",
            key=message.key() or b"",
            headers=[(name, text.encode()) for name, text in told.items()],
            on_delivery=self._delivered,
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Raises BusTimeout where Kafka has not taken all of them."""
        if not self._open:
            return
        waiting = self._producer.flush(_FLUSH_SECONDS)
        if waiting or self._failed:
            reason = self._failed.pop() if self._failed else "no answer"
            raise BusTimeout(f"rejected rows cannot be written to {topics.DEAD_LETTERS}: {reason}")
        self._open = False

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error.str())
