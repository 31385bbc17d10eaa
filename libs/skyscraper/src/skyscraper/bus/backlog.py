"""What of a partition of `sky.segments` waits to be processed, asked from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from skyscraper.bus.errors import BusTimeout
from skyscraper.bus.topics import SEGMENTS
from skyscraper.bus.watermarks import watermarks


def waiting_segments(client: Mapping[str, Any], group: str, partition: int, *, deadline_seconds: float) -> int:
    """Segments in Kafka that the consumer group has not committed. Raises BusTimeout."""
    consumer = Consumer({**client, "group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed"})
    place = TopicPartition(SEGMENTS, partition)
    try:
        # The end first: a commit that comes in between can only make the answer too large.
        low, high = watermarks(consumer, SEGMENTS, partition, deadline_seconds=deadline_seconds)
        committed = consumer.committed([place], timeout=deadline_seconds)[0].offset
    except KafkaException as error:
        raise BusTimeout(f"{SEGMENTS} [{partition}]: its backlog cannot be told: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return max(0, high - max(low, 0 if committed == OFFSET_INVALID else committed))
