"""A topic with one writer at a time, whichever process that is.

The transactional id belongs to the role, not to a process. A new writer's producer fences the old one's (KIP-98): what
that has not committed is gone, and it can commit nothing more. Only then should the newest state be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from skyscraper.bus import topics
from skyscraper.bus.errors import BusError, BusTimeout

# Long enough for a broker that restarts; a transaction of a dead writer is aborted by its successor at once.
_TRANSACTION_SECONDS = 10.0
_FENCED = (
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's public name for it
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
)


class Deposed(BusError):
    """Another process has taken over this one's role: what it wants to write is no longer wanted."""


class FencedWriter:
    """Fences all others when it is made. One thread. Raises BusTimeout, Deposed."""

    def __init__(self, client: Mapping[str, Any], topic: str, *, transactional_id: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                **client,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
                "message.max.bytes": topics.MAX_MESSAGE_BYTES,
                "compression.type": "lz4",
                # See docs/decisions/0007: the default of 100 ms makes every commit wait that long.
                "retry.backoff.ms": 10,
            }
        )
        self._call(lambda: self._producer.init_transactions(_TRANSACTION_SECONDS), "init_transactions")

    def commit(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write all records, keys and values (None removes a key), in one transaction, in their order.

        Raises Deposed, BusTimeout; this writer is of no use afterwards.
        """
        self._call(self._producer.begin_transaction, "begin_transaction")
        for key, value in records:
            self._produce(key, value)
        self._call(lambda: self._producer.commit_transaction(_TRANSACTION_SECONDS), "commit_transaction")

    def _produce(self, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                # One partition: readers see records in their order.
                self._producer.produce(self._topic, value, key, 0)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise self._told(error.args[0], "produce") from error
            else:
                return

    def _call(self, call: Callable[[], None], what: str) -> None:
        deadline = time.monotonic() + _TRANSACTION_SECONDS
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    raise self._told(error.args[0], what) from error

    def _told(self, error: KafkaError, what: str) -> BusError | BusTimeout:
        if error.code() in _FENCED:
            return Deposed(f"{what} on {self._topic}: another writer has taken over: {error.str()}")
        return BusTimeout(f"{what} on {self._topic}: {error.str()}")
