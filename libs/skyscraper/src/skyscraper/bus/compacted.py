"""Reading compacted topics: the newest value of every key, once or continuously."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.watermarks import watermarks

log = structlog.get_logger()

# How long one metadata or watermark request may take inside a longer deadline.
_REQUEST_SECONDS = 5.0
_POLL_SECONDS = 0.1


def read_compacted(
    client: Mapping[str, Any],
    topic: str,
    partitions: Sequence[int] | None = None,
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, dict[bytes, bytes]]:
    """By partition, the newest committed value of every key, as of now.

    Everything in the log at the time of the call is taken into account: where a transaction is still open, the
    read waits for its end (KIP-98's last stable offset). `partitions` None means all. Raises BusTimeout, and BusError
    where the topic is not there.
    """
    deadline = clock() + deadline_seconds
    bounds = _bounds(client, topic, partitions, deadline_seconds=deadline_seconds, clock=clock)
    tables: dict[int, dict[bytes, bytes]] = {partition: {} for partition in bounds}
    ends = {partition: high for partition, (low, high) in bounds.items() if high > low}
    consumer = Consumer(_reader(client))
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
        while ends:
            if clock() >= deadline:
                raise BusTimeout(
                    f"reading {topic} partitions {sorted(ends)} to their ends took longer than {deadline_seconds:g} s; "
                    "a transaction that was left open holds readers up until it times out (if it never does, see "
                    "`kafka-transactions.sh find-hanging`)"
                )
            message = consumer.poll(_POLL_SECONDS)
            if message is not None:
                error = message.error()
                if error is not None:
                    _raise_if_final(error, topic)
                else:
                    apply(tables[message.partition() or 0], message.key(), message.value())
            # The position, not the last message: a log may end in transaction markers, which are never delivered.
            for position in consumer.position([TopicPartition(topic, partition) for partition in ends]):
                if position.offset >= ends[position.partition]:
                    del ends[position.partition]
        return tables
    finally:
        consumer.close()


class CompactedTable:
    """A compacted topic followed in the background; `get` answers from memory.

    One thread reads; any thread may ask. `start` returns once the table is complete as of its call.
    """

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        self._client = client
        self._topic = topic
        self._rows: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._positions: dict[int, int] = {}
        self._moved = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._follow, name=f"table-{topic}", daemon=True)

    def start(self, *, deadline_seconds: float) -> None:
        self._thread.start()
        self.refresh(deadline_seconds=deadline_seconds)

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            return self._rows.get(key)

    def items(self) -> dict[bytes, bytes]:
        with self._lock:
            return dict(self._rows)

    def refresh(self, *, deadline_seconds: float) -> None:
        """Wait until everything that is in the topic now has been read. Raises BusTimeout."""
        deadline = time.monotonic() + deadline_seconds
        bounds = _bounds(self._client, self._topic, None, deadline_seconds=deadline_seconds, clock=time.monotonic)
        ends = {partition: high for partition, (_, high) in bounds.items()}
        with self._moved:
            done = self._moved.wait_for(
                lambda: all(self._positions.get(partition, 0) >= end for partition, end in ends.items()),
                timeout=max(0.0, deadline - time.monotonic()),
            )
        if not done:
            raise BusTimeout(f"the table {self._topic} did not catch up within {deadline_seconds:g} s")

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_REQUEST_SECONDS)

    def _follow(self) -> None:
        while not self._stop.is_set():
            consumer = Consumer(_reader(self._client))
            try:
                self._read(consumer)
            except (KafkaException, BusTimeout, BusError) as error:
                log.warning("table_reader_restarts", topic=self._topic, error=str(error))
                self._stop.wait(1.0)
            finally:
                consumer.close()

    def _read(self, consumer: Consumer) -> None:
        partitions = _partitions_of(consumer, self._topic, _REQUEST_SECONDS)
        consumer.assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in partitions])
        while not self._stop.is_set():
            message = consumer.poll(_POLL_SECONDS)
            error = None if message is None else message.error()
            if error is not None:
                _raise_if_final(error, self._topic)
                continue
            positions = consumer.position([TopicPartition(self._topic, partition) for partition in partitions])
            with self._moved:
                if message is not None:
                    apply(self._rows, message.key(), message.value())
                self._positions = {position.partition: max(position.offset, 0) for position in positions}
                self._moved.notify_all()


def apply(table: dict[bytes, bytes], key: bytes | None, value: bytes | None) -> None:
    """One record's effect on the table: a null value removes its key; a record without a key means nothing."""
    if key is None:
        return
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _reader(client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **client,
        # A reader of whole partitions needs no group, but librdkafka wants the name of one.
        "group.id": "skyscraper-table-reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        # Compaction may remove what a position pointed at; the table is then simply read on.
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
        "topic.metadata.propagation.max.ms": 3000,
    }


def _partitions_of(consumer: Consumer, topic: str, deadline_seconds: float) -> list[int]:
    try:
        metadata = consumer.list_topics(topic, timeout=max(0.1, min(_REQUEST_SECONDS, deadline_seconds)))
    except KafkaException as error:
        raise BusTimeout(f"Kafka does not answer about {topic}: {error.args[0].str()}") from error
    found = metadata.topics[topic]
    if found.error is not None:
        raise BusError(f"topic {topic}: {found.error.str()}; create the topics with `skyscraper topics create`")
    return sorted(found.partitions)


def _bounds(
    client: Mapping[str, Any],
    topic: str,
    partitions: Sequence[int] | None,
    *,
    deadline_seconds: float,
    clock: Callable[[], float],
) -> dict[int, tuple[int, int]]:
    """First offset and log end of each partition, open transactions included."""
    deadline = clock() + deadline_seconds
    # To a read_committed client a partition ends where the oldest open transaction begins; here its true end counts.
    probe = Consumer({**_reader(client), "isolation.level": "read_uncommitted"})
    try:
        if partitions is None:
            partitions = _partitions_of(probe, topic, deadline_seconds)
        return {
            partition: watermarks(probe, topic, partition, deadline_seconds=deadline - clock(), clock=clock)
            for partition in partitions
        }
    finally:
        probe.close()


def _raise_if_final(error: KafkaError, topic: str) -> None:
    if error.fatal() or error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
        raise BusError(f"reading {topic}: {error.str()}")
