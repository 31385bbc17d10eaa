"""Creating topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.topics import TopicSpec

_REQUEST_SECONDS = 15.0


def create_topics(client: Mapping[str, Any], specs: Sequence[TopicSpec], *, replication_factor: int) -> list[str]:
    """Create what is not there yet, and add partitions where more are wanted; never fewer. Returns what was created.

    Settings of a topic that is there already are left alone: they may have been tuned on purpose.
    """
    admin = AdminClient(dict(client))
    try:
        present = admin.list_topics(timeout=_REQUEST_SECONDS).topics
    except KafkaException as error:
        raise BusTimeout(
            f"Kafka at {client.get('bootstrap.servers')} does not answer: {error.args[0].str()}"
        ) from error
    wanted = [spec for spec in specs if spec.name not in present]
    grown = [spec for spec in specs if spec.name in present and len(present[spec.name].partitions) < spec.partitions]
    futures: dict[str, Future[None]] = {}
    if wanted:
        futures |= admin.create_topics(
            [
                NewTopic(
                    spec.name,
                    num_partitions=spec.partitions,
                    replication_factor=replication_factor,
                    config=dict(spec.config),
                )
                for spec in wanted
            ],
            operation_timeout=_REQUEST_SECONDS,
        )
    if grown:
        futures |= admin.create_partitions(
            [NewPartitions(spec.name, spec.partitions) for spec in grown], operation_timeout=_REQUEST_SECONDS
        )
    for name, future in futures.items():
        try:
            future.result(_REQUEST_SECONDS)
        except KafkaException as error:
            # Another process created it in the same moment.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BusError(f"topic {name} cannot be created: {error.args[0].str()}") from error
    return [spec.name for spec in wanted]
