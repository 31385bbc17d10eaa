"""The rules of the register of streams: who owns which partition of `sky.segments`, and what a publisher registers.

One stream, one partition. Of several that claim one (programs that write `sky.streams` themselves may), the log's own
order decides: the earlier claim keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from skyscraper.bus.register import Register, change_register
from skyscraper.bus.topics import SEGMENTS
from skyscraper.errors import ConfigError
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, STREAM_STATE_REMOVING, STREAM_STATE_UNSPECIFIED, Stream


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
                f"only {partitions}: was the topic created anew? Add partitions, or remove the stream"
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
            f"sky.state, sky.reports and sky.dead-letters), or remove a stream: skyscraper stream remove"
        )
    return free


def register_streams(
    client: Mapping[str, Any],
    wanted: Iterable[tuple[Stream, int | None]],
    *,
    instance: str = "",
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, int]:
    """Write each stream with its partition (the one asked for, else its old one, else the lowest free).

    `client` are librdkafka's connection settings, `instance` the name of the publisher that brings the streams.
    Returns stream id → partition. Raises BusUnreachable after `deadline_seconds`, ConfigError where a stream cannot
    have a partition, is being removed, or is captured by another publisher.
    """
    streams = list(wanted)

    def change(register: Register, partitions: int) -> dict[str, Stream | None]:
        taken: set[int] = set()
        changed: dict[str, Stream | None] = {}
        for stream, requested in streams:
            entry = merged(register, stream, instance)
            entry.partition = allocate(register, stream, requested, partitions, taken)
            taken.add(entry.partition)
            before = register.get(stream.stream_id)
            if before is None or entry != before.stream:
                changed[stream.stream_id] = entry
        return changed

    register = change_register(client, change, deadline_seconds=deadline_seconds, clock=clock)
    return {stream.stream_id: register[stream.stream_id].stream.partition for stream, _ in streams}


def merged(register: Register, stream: Stream, instance: str) -> Stream:
    """What is said wins; what is not said (an empty field) is left as somebody else wrote it. Raises ConfigError."""
    entry = Stream()
    before = register.get(stream.stream_id)
    if before is not None:
        if before.stream.publisher not in {"", instance}:
            raise ConfigError(
                f"stream {stream.stream_id} is captured by the publisher {before.stream.publisher!r} already, and two "
                f"would mix their segments: remove it with `skyscraper stream remove {stream.stream_id}`, or publish "
                "under another id"
            )
        if before.stream.state == STREAM_STATE_REMOVING:
            raise ConfigError(
                f"stream {stream.stream_id} is being removed: end that with "
                f"`skyscraper stream remove {stream.stream_id}`, then start again"
            )
        entry.CopyFrom(before.stream)
    entry.MergeFrom(stream)
    entry.publisher = stream.publisher
    if entry.state == STREAM_STATE_UNSPECIFIED:
        entry.state = STREAM_STATE_ACTIVE
    return entry
