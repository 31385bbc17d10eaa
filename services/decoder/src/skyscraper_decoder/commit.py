"""The exactly-once commit: rows, reports, dead letters, operator state and input offsets in one Kafka transaction.

A transaction begins and ends inside `Committer.commit`; between two commits the lanes go on working. The offsets go
in with the consumer group's generation (KIP-447), so a decoder that has lost its partitions cannot commit for them,
however late it wakes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.headers import Headers
from skyscraper.v1 import state_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.outcome import Outcome

log = structlog.get_logger()

# librdkafka: let the partitioner choose.
PARTITION_BY_KEY = -1


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

        True: committed. False: aborted, nothing happened, try the same outcomes again. Raises BusError where this
        process must not go on (fenced by a newer instance, or the outcome of the commit is unknown).
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
            self._producer.send_offsets_to_transaction(
                [TopicPartition(topics.SEGMENTS, partition, offset) for partition, offset in offsets.items()],
                consumer.consumer_group_metadata(),
                self._timeout_seconds,
            )
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
        if error.fatal() or not error.txn_requires_abort():
            raise BusError(
                f"the transaction cannot go on: {error.str()}; this process ends and must be restarted"
            ) from cause
        self._check(
            lambda: self._retry(lambda: self._producer.abort_transaction(self._timeout_seconds)), "abort_transaction"
        )
        return False

    def _check(self, call: Callable[[], None], what: str) -> None:
        try:
            call()
        except KafkaException as error:
            if not error.args[0].fatal():
                raise BusTimeout(f"{what}: {error.args[0].str()}") from error
            raise BusError(f"{what}: {error.args[0].str()}; this process ends and must be restarted") from error
