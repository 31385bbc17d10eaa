"""Where a partition begins and ends, asked until somebody leads it."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from skyscraper.bus.errors import BusTimeout

# How long one request may take inside a longer deadline.
_REQUEST_SECONDS = 5.0
_PAUSE_SECONDS = 0.2


def watermarks(
    consumer: Consumer,
    topic: str,
    partition: int,
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """First offset and end; for a read_committed consumer its end is where the oldest open transaction begins.

    A topic just created, or a broker just started, has no leader for a moment: that is waited for. Raises BusTimeout.
    """
    until = clock() + deadline_seconds
    while True:
        timeout = max(0.1, min(_REQUEST_SECONDS, until - clock()))
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout, cached=False)
        except KafkaException as error:
            refused = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
            if refused or clock() + _PAUSE_SECONDS >= until:
                raise BusTimeout(f"Kafka does not answer about {topic} [{partition}]: {error.args[0].str()}") from error
            sleep(_PAUSE_SECONDS)
        else:
            return int(low), int(high)
