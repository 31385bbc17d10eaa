"""Reading the register of streams (`sky.streams`) as of now, and changing it without losing anybody else's change.

A change is a read, a decision and a write, and two people may make one at once. Kafka has no compare-and-set, but a
transactional id has one holder: whoever begins a change takes the id over (`init_transactions`), which ends what an
earlier holder had open. So a write is committed only if nobody has begun a change since it was read for; the one that
was overtaken finds itself fenced, reads again, and decides anew.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from google.protobuf.message import DecodeError

from skyscraper.bus.topics import SEGMENTS, STATE, STREAMS
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.v1.stream_pb2 import Stream

TRANSACTIONAL_ID = "skyscraper-streams"
# Longer than a broker takes to restart (docs/decisions/0008). A change itself is over in milliseconds.
TRANSACTION_SECONDS = 30.0
# A change is overtaken only by another one that went further, so many at once still come to an end.
MAX_ROUNDS = 50
# Between two tries to read while the broker has no leader or does not answer.
RETRY_SECONDS = 0.2
# A change takes about 50 ms of the id: those who collide spread over several times that, ever wider.
FIRST_WAIT_SECONDS = 0.1
LAST_WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.02
# Being overtaken is part of the game and told by exceptions; librdkafka would print it as fatal.
_SILENT = logging.getLogger("skyscraper.register")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
_MISSING = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own codes are spelled so
}


class BusUnreachable(SkyscraperError):
    """No broker answered in time."""

    retriable = True


@dataclass(frozen=True)
class Registration:
    """A stream as it stands in the register."""

    stream: Stream
    offset: int
    """Where in the log it began to claim its partition: of two that claim one, the earlier owns it."""


Register = Mapping[str, Registration]
Change = Callable[[Register, int], Mapping[str, Stream | None]]
"""From the register and the number of partitions of `sky.segments` to the entries to write; None removes one."""


def read_register(
    client: Mapping[str, Any], *, deadline_seconds: float, clock: Callable[[], float] = time.monotonic
) -> tuple[dict[str, Registration], int]:
    """Every registered stream by id, and the number of partitions of `sky.segments`. Raises BusUnreachable,
    ConfigError where a topic is missing."""
    until = clock() + deadline_seconds
    while True:
        try:
            reader = _Reader(client, until, clock)
            try:
                return reader.to_the_end(), reader.partitions
            finally:
                reader.close()
        except KafkaException as error:
            # A topic just created, or a broker just started, has no leader for a moment.
            if clock() + RETRY_SECONDS >= until:
                raise _unreachable(client, error) from error
            time.sleep(RETRY_SECONDS)


def change_register(
    client: Mapping[str, Any],
    change: Change,
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Registration]:
    """Decide on the register as it is and write the decision, with nobody else's change in between.

    `change` may be called several times, and may raise: then nothing is written. Returns the register that the last
    call was given, with the decision laid over it. Raises BusUnreachable, ConfigError where a topic is missing.
    """
    until = clock() + deadline_seconds
    wait_seconds = FIRST_WAIT_SECONDS
    for _ in range(MAX_ROUNDS):
        try:
            reader = _Reader(client, until, clock)
            try:
                # Most of the reading happens before the id is held, so that it is held only shortly; and what is as
                # it should be, or cannot be, needs no id.
                register = reader.to_the_end()
                if not change(register, reader.partitions):
                    return register
                return _change(client, reader, change, until, clock)
            finally:
                reader.close()
        except KafkaException as error:
            if clock() + wait_seconds >= until:
                raise _unreachable(client, error) from error
        time.sleep(random.uniform(0, wait_seconds))  # noqa: S311 - spreads those who collided
        wait_seconds = min(2 * wait_seconds, LAST_WAIT_SECONDS)
    raise BusUnreachable(f"{STREAMS} was changed by others {MAX_ROUNDS} times in a row: try again")


def _change(
    client: Mapping[str, Any], reader: _Reader, change: Change, until: float, clock: Callable[[], float]
) -> dict[str, Registration]:
    producer = Producer(
        {
            **client,
            "transactional.id": TRANSACTIONAL_ID,
            "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
            # As in the decoder: the markers of the last transaction are written within milliseconds.
            "retry.backoff.ms": 10,
            "logger": _SILENT,
        }
    )
    producer.init_transactions(max(0.1, until - clock()))
    register = reader.to_the_end()
    written = change(register, reader.partitions)
    after = dict(register)
    if not written:
        return after
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            refused.append(error)

    producer.begin_transaction()
    for stream_id, stream in written.items():
        value = None if stream is None else stream.SerializeToString(deterministic=True)
        producer.produce(STREAMS, value, stream_id, on_delivery=delivered)
        if stream is None:
            gone = after.pop(stream_id, None)
            if gone is not None:
                # Whoever is called so next begins with an empty memory.
                producer.produce(STATE, None, stream_id, gone.stream.partition, on_delivery=delivered)
        else:
            after[stream_id] = _registration(register.get(stream_id), stream, reader.end)
    producer.commit_transaction(max(0.1, until - clock()))
    if refused:
        raise KafkaException(refused[0])
    return after


class _Reader:
    """A consumer that has read `sky.streams` up to some point, and can read on."""

    def __init__(self, client: Mapping[str, Any], until: float, clock: Callable[[], float]) -> None:
        self._until, self._clock = until, clock
        self._register: dict[str, Registration] = {}
        self.end = 0
        self._consumer = Consumer(
            {
                **client,
                "group.id": "skyscraper-register",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
            }
        )
        try:
            self.partitions = len(_topic(self._consumer, SEGMENTS, self._left()))
            self._places = [TopicPartition(STREAMS, number) for number in _topic(self._consumer, STREAMS, self._left())]
            self._consumer.assign([TopicPartition(STREAMS, one.partition, OFFSET_BEGINNING) for one in self._places])
        except BaseException:
            self.close()
            raise

    def to_the_end(self) -> dict[str, Registration]:
        """The register with everything that is committed now."""
        ends = {}
        for place in self._places:
            low, high = self._consumer.get_watermark_offsets(place, timeout=self._left(), cached=False)
            if high > low:
                ends[place.partition] = high
        # The position, not the last message: a log may end in transaction markers, which are never delivered.
        while any(max(0, one.offset) < ends.get(one.partition, 0) for one in self._consumer.position(self._places)):
            if self._clock() >= self._until:
                raise BusUnreachable(f"{STREAMS} could not be read to its end in time: is the broker there?")
            # One by one: librdkafka does not move its position over a marker when it hands out several at once.
            message = self._consumer.poll(_POLL_SECONDS)
            if message is not None and message.error() is None:
                self._take((message.key() or b"").decode(errors="replace"), message.value(), message.offset() or 0)
        self.end = max(ends.values(), default=0)
        return dict(self._register)

    def close(self) -> None:
        self._consumer.close()

    def _take(self, key: str, value: bytes | None, offset: int) -> None:
        if not value:
            self._register.pop(key, None)
            return
        try:
            stream = Stream.FromString(value)
        except DecodeError as error:
            raise ConfigError(f"{STREAMS}, offset {offset}, key {key}: not a Stream: {error}") from error
        self._register[key] = _registration(self._register.get(key), stream, offset)

    def _left(self) -> float:
        return max(0.1, self._until - self._clock())


def _registration(before: Registration | None, stream: Stream, offset: int) -> Registration:
    """An entry that is written again keeps its claim's place in the log."""
    keeps = before is not None and before.stream.partition == stream.partition
    return Registration(stream, before.offset if before is not None and keeps else offset)


def _topic(consumer: Consumer, name: str, timeout_seconds: float) -> list[int]:
    metadata = consumer.list_topics(name, timeout=timeout_seconds).topics[name]
    if metadata.error is not None and metadata.error.code() in _MISSING:
        raise ConfigError(
            f"the topic {name} does not exist on this broker: create the installation's topics with "
            "`skyscraper topics create`"
        )
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


def _unreachable(client: Mapping[str, Any], error: KafkaException) -> BusUnreachable:
    fault = error.args[0]
    told = fault.str() if isinstance(fault, KafkaError) else str(error)
    return BusUnreachable(f"Kafka at {client.get('bootstrap.servers')} did not answer in time: {told}")
