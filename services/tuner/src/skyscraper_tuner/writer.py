"""Writing plans: one writer at a time, whose versions only rise.

The transactional id belongs to the planner, whichever process that is. A new planner's producer fences the old one's:
what that has not committed is gone, and it can commit nothing more. Only then is the newest version read, so no
version is ever given twice and readers see each key's versions rise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.v1 import plan_pb2

log = structlog.get_logger()

# Long enough for a broker that restarts; a transaction of a dead planner is aborted by its successor at once.
_TRANSACTION_SECONDS = 10.0
_FENCED = (
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's public name for it
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
)


class Deposed(BusError):
    """Another planner has taken over: this one's plans are no longer wanted."""


class PlanWriter:
    """Fences all others when it is made. One thread. Raises BusTimeout."""

    def __init__(self, client: Mapping[str, Any], *, transactional_id: str) -> None:
        self._producer = Producer(
            {
                **client,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
                "message.max.bytes": topics.MAX_MESSAGE_BYTES,
                "compression.type": "lz4",
                # See the decoder's committer: the default of 100 ms makes every commit wait that long.
                "retry.backoff.ms": 10,
            }
        )
        self._call(lambda: self._producer.init_transactions(_TRANSACTION_SECONDS), "init_transactions")
        self.published: dict[bytes, plan_pb2.Plan] = {}
        for table in read_compacted(client, topics.PLANS, deadline_seconds=_TRANSACTION_SECONDS).values():
            for key, value in table.items():
                try:
                    self.published[key] = plan_pb2.Plan.FromString(value)
                except DecodeError:
                    log.warning("plan_cannot_be_read", key=key.decode(errors="replace"))
        self.version = max((plan.version for plan in self.published.values()), default=0)

    def publish(self, plans: Mapping[bytes, plan_pb2.Plan]) -> None:
        """Write all plans, and remove those of keys that are not among them, in one transaction.

        The pool's goes first. Raises Deposed, BusTimeout; this writer is of no use afterwards.
        """
        version = self.version
        numbered: dict[bytes, plan_pb2.Plan] = {}
        for key in sorted(plans, key=lambda key: (key != topics.POOL_KEY, key)):
            version += 1
            numbered[key] = plan_pb2.Plan()
            numbered[key].CopyFrom(plans[key])
            numbered[key].version = version
        gone = [key for key in self.published if key not in numbered]
        if not numbered and not gone:
            return
        self._call(self._producer.begin_transaction, "begin_transaction")
        for key, plan in numbered.items():
            self._produce(key, plan.SerializeToString(deterministic=True))
        for key in gone:
            self._produce(key, None)
        self._call(lambda: self._producer.commit_transaction(_TRANSACTION_SECONDS), "commit_transaction")
        self.version, self.published = version, numbered

    def _produce(self, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                # One partition: readers see versions in their order.
                self._producer.produce(topics.PLANS, value, key, 0)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise _told(error.args[0], "produce") from error
            else:
                return

    def _call(self, call: Callable[[], None], what: str) -> None:
        deadline = time.monotonic() + _TRANSACTION_SECONDS
        while True:
            try:
                return call()
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= deadline:
                    raise _told(error.args[0], what) from error


def _told(error: KafkaError, what: str) -> BusError | BusTimeout:
    if error.code() in _FENCED:
        return Deposed(f"{what}: another planner has taken over: {error.str()}")
    return BusTimeout(f"{what} on {topics.PLANS}: {error.str()}")
