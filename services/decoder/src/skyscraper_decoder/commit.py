"""The exactly-once commit: rows, reports, dead letters, operator state and input offsets in one Kafka transaction.

A transaction begins and ends inside `Committer.commit`; between two commits the lanes go on working. The offsets go
in with the consumer group's generation (KIP-447), so a decoder that has lost its partitions cannot commit for them,
however late it wakes up.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.headers import Headers
from skyscraper.v1 import state_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.outcome import Outcome

log = structlog.get_logger()

# librdkafka: let the partitioner choose.
PARTITION_BY_KEY = -1

_FENCED = (
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's public name for it
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID,
)


class Committer:
    """Owns the process's one transactional producer."""

    def __init__(self, client: Mapping[str, Any], *, transactional_id: str, transaction_timeout_seconds: float) -> None:
        self._timeout_seconds = transaction_timeout_seconds
        self._producer = Producer(
            {
                **client,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(transaction_timeout_seconds * 1000),
                "message.max.bytes": topics.MAX_MESSAGE_BYTES + 64 * 1024,
                "compression.type": "lz4",
                "linger.ms": 5,
                # The broker answers CONCURRENT_TRANSACTIONS while it still writes the previous transaction's markers
                # (a few milliseconds); librdkafka's default of 100 ms makes every commit wait that long.
                "retry.backoff.ms": 10,
            }
        )
        self._check(lambda: self._producer.init_transactions(transaction_timeout_seconds), "init_transactions")

    def commit(self, consumer: Consumer, outcomes: Sequence[Outcome]) -> bool:
        """Write `outcomes` (in order per partition) and their offsets, all or nothing.

        True: committed. False: aborted, nothing happened, try the same outcomes again. Raises BusError where another
        process has this one's name, BusTimeout where the outcome is unknown and a new start must find it out.
        """
        started = time.monotonic()
        self._producer.begin_transaction()
        try:
            states: dict[tuple[int, str], state_pb2.OperatorState] = {}
            for outcome in outcomes:
                for record in outcome.records:
                    self._produce(record.topic, record.key, record.value, record.partition, record.headers)
                report = outcome.report
                self._produce(topics.REPORTS, report.stream_id.encode(), report.SerializeToString(), outcome.partition)
                if outcome.state is not None:
                    states[outcome.partition, outcome.state.stream_id] = outcome.state
            for (partition, stream_id), state in states.items():
                self._produce(topics.STATE, stream_id.encode(), state.SerializeToString(), partition)
            offsets = {outcome.partition: outcome.next_offset for outcome in outcomes}
            places = [TopicPartition(topics.SEGMENTS, partition, offset) for partition, offset in offsets.items()]
            group = consumer.consumer_group_metadata()
            self._retry(lambda: self._producer.send_offsets_to_transaction(places, group, self._timeout_seconds))
            self._retry(lambda: self._producer.commit_transaction(self._timeout_seconds))
        except KafkaException as error:
            return self._abort(error)
        metrics.COMMITS.labels("committed").inc()
        metrics.COMMIT_SECONDS.observe(time.monotonic() - started)
        return True

    def _produce(
        self, topic: str, key: bytes, value: bytes, partition: int | None, headers: Headers | None = None
    ) -> None:
        where = PARTITION_BY_KEY if partition is None else partition
        while True:
            try:
                self._producer.produce(topic, value, key, where, headers=[*(headers or [])])
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _retry(self, call: Callable[[], None]) -> None:
        """librdkafka says of each transactional error whether the same call should be made again."""
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    raise

    def _abort(self, cause: KafkaException) -> bool:
        error = cause.args[0]
        metrics.COMMITS.labels("aborted").inc()
        log.warning("transaction_aborted", error=error.str(), code=error.name())
        if error.txn_requires_abort() and not error.fatal():
            abort = functools.partial(self._producer.abort_transaction, self._timeout_seconds)
            self._check(lambda: self._retry(abort), "abort_transaction")
            return False
        raise _final(error, "commit") from cause

    def _check(self, call: Callable[[], None], what: str) -> None:
        try:
            call()
        except KafkaException as error:
            raise _final(error.args[0], what) from error


def _final(error: KafkaError, what: str) -> BusError | BusTimeout:
    """What to make of an error after which this producer is of no use any more.

    Fenced: a newer process of the same name is at work, and this one must end. Anything else (a broker that was away
    for longer than the timeout, above all) leaves the transaction neither done nor undone as far as this producer
    knows; a new producer with the same transactional id ends it either way, and the committed offset then says which.
    """
    if error.code() in _FENCED:
        return BusError(f"{what}: fenced, another decoder of the same instance name runs: {error.str()}")
    return BusTimeout(f"{what}: {error.str()}")
