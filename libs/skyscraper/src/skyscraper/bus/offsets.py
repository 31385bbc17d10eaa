"""Offsets of many partitions at once: one request per broker, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from skyscraper.bus.errors import BusError, BusTimeout

EARLIEST = cast(OffsetSpec, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
LATEST = cast(OffsetSpec, OffsetSpec.latest())  # type: ignore[no-untyped-call]
NEWEST = cast(OffsetSpec, OffsetSpec.max_timestamp())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Bounds:
    """Offsets of a partition: the oldest that Kafka still has, and the next that will be written."""

    low: int
    high: int


class Offsets:
    """Asks about one topic. One thread. Every method raises BusTimeout, and BusError where there is no such topic."""

    def __init__(self, client: Mapping[str, Any], topic: str, *, request_seconds: float) -> None:
        # Kept for as long as answers are awaited: an AdminClient that is dropped takes its requests with it.
        self.admin = AdminClient(dict(client))
        self._topic = topic
        self._request_seconds = request_seconds

    def bounds(self, partitions: Iterable[int], *, committed: bool = False) -> dict[int, Bounds]:
        """By partition. `committed`: up to where the oldest open transaction begins."""
        wanted = list(partitions)
        low = self.find(dict.fromkeys(wanted, EARLIEST))
        high = self.find(dict.fromkeys(wanted, LATEST), committed=committed)
        return {one: Bounds(low[one][0], high[one][0]) for one in wanted}

    def find(self, wanted: Mapping[int, OffsetSpec], *, committed: bool = False) -> dict[int, tuple[int, int]]:
        """Offset and timestamp (ms) as Kafka answers; -1 where there is none."""
        if not wanted:
            return {}
        asked = self.admin.list_offsets(
            {TopicPartition(self._topic, one): spec for one, spec in wanted.items()},
            isolation_level=IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self._request_seconds,
        )
        answers = {place.partition: self.result(future) for place, future in asked.items()}
        return {partition: (answer.offset, answer.timestamp) for partition, answer in answers.items()}

    def result(self, future: Future[Any]) -> Any:
        """What an admin request about the topic gave."""
        try:
            return future.result(self._request_seconds + 1.0)
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() == KafkaError._NOENT and not self._exists():  # noqa: SLF001 - librdkafka's own spelling
                raise BusError(
                    f"the topic {self._topic} does not exist: create the topics with `skyscraper topics create`"
                ) from error
            if fault.retriable() or fault.code() < 0:
                raise BusTimeout(f"Kafka does not answer about {self._topic}: {fault.str()}") from error
            raise BusError(f"Kafka refuses to tell about {self._topic}: {fault.str()}") from error
        except TimeoutError as error:
            raise BusTimeout(f"Kafka did not answer about {self._topic} in {self._request_seconds:g} s") from error

    def brokers(self) -> list[int]:
        """Ids of the brokers."""
        try:
            return list(self.admin.list_topics(self._topic, timeout=self._request_seconds).brokers)
        except KafkaException as error:
            raise BusTimeout(f"Kafka does not answer about {self._topic}: {error.args[0].str()}") from error

    def _exists(self) -> bool:
        """False only where Kafka says so: partitions may also be without leaders for a moment."""
        try:
            found = self.admin.list_topics(self._topic, timeout=self._request_seconds).topics[self._topic]
        except KafkaException:
            return True
        return found.error is None or found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART
