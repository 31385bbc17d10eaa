"""How long Kafka keeps a segment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from skyscraper.bus import topics
from skyscraper.bus.errors import BusTimeout
from skyscraper.control.headroom import Retention

_REQUEST_SECONDS = 10.0


def read_retention(client: Mapping[str, Any]) -> Retention:
    """The buffer's limits as Kafka has them. Raises BusTimeout."""
    resource = ConfigResource(ResourceType.TOPIC, topics.SEGMENTS)
    # The handle must outlive its answer: an AdminClient that is dropped takes its requests with it.
    admin = AdminClient(dict(client))
    try:
        settings = admin.describe_configs([resource])[resource].result(_REQUEST_SECONDS)
    except (KafkaException, TimeoutError) as error:
        raise BusTimeout(f"the retention of {topics.SEGMENTS} cannot be read: {error}") from error
    milliseconds, size = (int(settings[name].value) for name in ("retention.ms", "retention.bytes"))
    return Retention(milliseconds / 1000 if milliseconds >= 0 else None, size if size >= 0 else None)
