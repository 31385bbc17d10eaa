"""The register of streams: who owns which partition of `sky.segments`, kept in the compacted topic `sky.streams`.

One stream, one partition. Two publishers that claim the same free partition at the same moment are told apart by the
log's own order: the record with the smaller offset keeps it, the other one looks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from google.protobuf.message import DecodeError

from skyscraper.bus.topics import SEGMENTS, STREAMS
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.v1.stream_pb2 import Stream

# Each round is lost only to a publisher that won a partition in it, so many starting at once still come to an end.
MAX_ROUNDS = 20
# Between two tries to read while the broker has no leader or does not answer.
RETRY_SECONDS = 0.2


class BusUnreachable(SkyscraperError):
    """No broker answered in time."""

    retriable = True


@dataclass(frozen=True)
class Registration:
    """A stream as it stands in the register, and where in the log."""

    stream: Stream
    offset: int


Register = Mapping[str, Registration]


def owners(register: Register) -> dict[int, str]:
    """The stream that owns each claimed partition: of several claims, the one with the smallest offset."""
    found: dict[int, str] = {}
    for stream_id, registration in sorted(register.items(), key=lambda item: item[1].offset):
        found.setdefault(registration.stream.partition, stream_id)
    return found


def lowest_free_partition(taken: Collection[int], partitions: int) -> int | None:
    return next((number for number in range(partitions) if number not in taken), None)


def allocate(register: Register, wanted: Stream, requested: int | None, partitions: int, taken: set[int]) -> int:
    """The partition for `wanted`: the one it has, else the requested, else the lowest free. Raises ConfigError.

    `taken` are the partitions given away in this round.
    """
    owned = owners(register)
    current = register.get(wanted.stream_id)
    keeps = current is not None and owned.get(current.stream.partition) == wanted.stream_id
    if current is not None and keeps and requested in {None, current.stream.partition}:
        if current.stream.partition >= partitions:
            raise ConfigError(
                f"stream {wanted.stream_id} is registered on partition {current.stream.partition}, but {SEGMENTS} has "
                f"only {partitions}: was the topic created anew? Remove the stream from {STREAMS} or add partitions"
            )
        return current.stream.partition
    if requested is not None:
        holder = owned.get(requested)
        if requested >= partitions:
            raise ConfigError(
                f"partition {requested} for stream {wanted.stream_id}: {SEGMENTS} has {partitions} partitions "
                f"(0 to {partitions - 1})"
            )
        if (holder is not None and holder != wanted.stream_id) or requested in taken:
            raise ConfigError(
                f"partition {requested} for stream {wanted.stream_id} belongs to stream {holder or 'of this start'}: "
                "choose another, or leave it out to get the lowest free one"
            )
        return requested
    free = lowest_free_partition(set(owned) | taken, partitions)
    if free is None:
        raise ConfigError(
            f"no partition of {SEGMENTS} is free for stream {wanted.stream_id}: all {partitions} are taken. Add some, "
            f"e.g. kafka-topics.sh --alter --topic {SEGMENTS} --partitions {partitions * 2} (and the same for "
            f"sky.state, sky.reports and sky.dead-letters), or remove a stream from {STREAMS}"
        )
    return free


def register_streams(
    client: Mapping[str, Any],
    wanted: Iterable[tuple[Stream, int | None]],
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, int]:
    """Write each stream with its partition (the one asked for, else its old one, else the lowest free).

    `client` are librdkafka's connection settings. Returns stream id → partition. Raises BusUnreachable after
    `deadline_seconds`, ConfigError where a stream cannot have a partition.
    """
    until = clock() + deadline_seconds
    streams = list(wanted)
    for _ in range(MAX_ROUNDS):
        register, partitions = read_register(client, deadline_seconds=until - clock(), clock=clock)
        taken: set[int] = set()
        changed: list[Stream] = []
        for stream, requested in streams:
            entry = Stream()
            before = register.get(stream.stream_id)
            if before is not None:
                entry.CopyFrom(before.stream)
            # What is said wins; what is not said (an empty field) is left as somebody else wrote it.
            entry.MergeFrom(stream)
            entry.partition = allocate(register, stream, requested, partitions, taken)
            taken.add(entry.partition)
            if before is None or entry != before.stream:
                changed.append(entry)
        if not changed:
            return {stream_id: register[stream_id].stream.partition for stream_id in (s.stream_id for s, _ in streams)}
        _write(client, changed, until - clock())
    raise BusUnreachable(f"{STREAMS} was rewritten by others {MAX_ROUNDS} times in a row: try again")


def read_register(
    client: Mapping[str, Any], *, deadline_seconds: float, clock: Callable[[], float] = time.monotonic
) -> tuple[dict[str, Registration], int]:
    """Every registered stream by id, and the number of partitions of `sky.segments`."""
    until = clock() + deadline_seconds
    while True:
        try:
            return _read_register(client, until, clock)
        except KafkaException as error:
            # A topic just created, or a broker just started, has no leader for a moment.
            if clock() + RETRY_SECONDS >= until:
                raise BusUnreachable(f"cannot read {STREAMS}: {error}") from error
            time.sleep(RETRY_SECONDS)


def _read_register(
    client: Mapping[str, Any], until: float, clock: Callable[[], float]
) -> tuple[dict[str, Registration], int]:
    consumer = Consumer({**client, "group.id": "skyscraper-register", "enable.auto.commit": False})
    try:
        partitions = len(_topic(consumer, SEGMENTS, until - clock()))
        ends = {}
        for number in _topic(consumer, STREAMS, until - clock()):
            where = TopicPartition(STREAMS, number, OFFSET_BEGINNING)
            _, high = consumer.get_watermark_offsets(where, timeout=max(0.1, until - clock()))
            ends[number] = high
        consumer.assign([TopicPartition(STREAMS, number, OFFSET_BEGINNING) for number in ends])
        return _read_to(consumer, ends, until, clock), partitions
    finally:
        consumer.close()


def _read_to(
    consumer: Consumer, ends: Mapping[int, int], until: float, clock: Callable[[], float]
) -> dict[str, Registration]:
    register: dict[str, Registration] = {}
    while any(_position(consumer, number) < end for number, end in ends.items()):
        if clock() >= until:
            raise BusUnreachable(f"{STREAMS} could not be read to its end in time: is the broker there?")
        for message in consumer.consume(500, timeout=0.1):
            if message.error() is not None:
                continue
            key, value = (message.key() or b"").decode(errors="replace"), message.value()
            if not value:
                register.pop(key, None)
                continue
            try:
                register[key] = Registration(Stream.FromString(value), message.offset() or 0)
            except DecodeError as error:
                raise ConfigError(f"{STREAMS}, offset {message.offset()}, key {key}: not a Stream: {error}") from error
    return register


def _position(consumer: Consumer, number: int) -> int:
    offset = consumer.position([TopicPartition(STREAMS, number)])[0].offset
    return max(0, int(offset))


def _topic(consumer: Consumer, name: str, timeout_seconds: float) -> list[int]:
    metadata = consumer.list_topics(name, timeout=max(0.1, timeout_seconds)).topics[name]
    if metadata.error is not None and metadata.error.code() in {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own codes are spelled so
    }:
        raise ConfigError(f"the topic {name} does not exist on this broker: create the installation's topics first")
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


def _write(client: Mapping[str, Any], streams: Iterable[Stream], timeout_seconds: float) -> None:
    producer = Producer({**client, "enable.idempotence": True})
    errors: list[KafkaError] = []
    for stream in streams:
        producer.produce(
            STREAMS,
            key=stream.stream_id,
            value=stream.SerializeToString(deterministic=True),
            on_delivery=lambda error, _: errors.append(error) if error is not None else None,
        )
    if producer.flush(max(0.1, timeout_seconds)) or errors:
        raise BusUnreachable(f"could not write {STREAMS}: {errors[0] if errors else 'no answer in time'}")
