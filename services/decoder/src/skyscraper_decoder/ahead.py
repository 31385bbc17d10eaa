"""Reading ahead: what waits in the buffer, known from its headers.

A second consumer reads the owned partitions up to their ends and keeps of every segment a line: when it arrived, how
long it is, its content features (read from its bytes where its headers tell none). Values are dropped as they come. It
costs the reading of every segment a second time (from the broker's page cache, where the newest bytes are), and buys
the content of hours ahead: for predictions, for prices, and for a guard that knows every deadline behind the segment
that is next.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray
from skyscraper.bus import topics
from skyscraper.bus.headers import decode_headers

from skyscraper_decoder import metrics
from skyscraper_decoder.arrival import arrived_seconds, headers_of
from skyscraper_decoder.surveying import Surveyor

log = structlog.get_logger()

Floats = NDArray[np.float64]

# Segments before one whose means are predictor inputs (the longest window of `profile.predict`).
BEHIND_SEGMENTS = 64
_POLL_SECONDS = 0.1
_BATCH = 500
_JOIN_SECONDS = 5.0
# Several streams' worth of large segments at once; what is read ahead is thrown away, so there is no use for more.
_QUEUED_KBYTES = 4096


@dataclass(slots=True, eq=False)
class Seen:
    """A segment's line. `event_seconds` of its first frame, since the Unix epoch. `predicted` [K] is filled in by
    whoever knows the model of that version."""

    offset: int
    stream_id: str
    arrived_seconds: float
    event_seconds: float
    duration_seconds: float | None
    size_bytes: int
    features: Mapping[str, float]
    predicted: Floats | None = field(default=None)
    predicted_by: str = ""


class Ahead:
    """What is known of each owned partition, from some segments before the next one on. Any thread may ask."""

    def __init__(self, *, most_segments: int) -> None:
        self._most = most_segments
        self._lines: dict[int, list[Seen]] = {}
        self._next: dict[int, int] = {}
        self._lock = threading.Lock()

    def own(self, partition: int, next_offset: int) -> None:
        with self._lock:
            self._lines[partition] = []
            self._next[partition] = next_offset

    def disown(self, partition: int) -> None:
        with self._lock:
            self._lines.pop(partition, None)
            self._next.pop(partition, None)

    def partitions(self) -> list[int]:
        with self._lock:
            return list(self._lines)

    def add(self, partition: int, line: Seen) -> None:
        with self._lock:
            lines = self._lines.get(partition)
            if lines is not None and (not lines or lines[-1].offset < line.offset):
                lines.append(line)

    def full(self, partition: int) -> bool:
        with self._lock:
            return len(self._lines.get(partition, ())) >= self._most + BEHIND_SEGMENTS

    def taken(self, partition: int, offset: int) -> None:
        """The segment at `offset` is being processed: it and what is before it wait no longer."""
        with self._lock:
            if partition not in self._lines:
                return
            self._next[partition] = offset + 1
            lines = self._lines[partition]
            behind = bisect.bisect_right(lines, offset, key=_offset) - BEHIND_SEGMENTS
            # Seldom, since it moves the whole list.
            if behind > BEHIND_SEGMENTS:
                del lines[:behind]

    def around(self, partition: int, offset: int, behind: int, before: int) -> tuple[list[Seen], list[Seen]]:
        """Up to `before` lines before the offset, and up to `behind` behind it."""
        with self._lock:
            lines = self._lines.get(partition, [])
            at = bisect.bisect_left(lines, offset, key=_offset)
            after = at + (at < len(lines) and lines[at].offset == offset)
            return lines[max(0, at - before) : at], lines[after : after + behind]

    def completed(self, partition: int, line: Seen) -> Seen:
        """The line, with what reading ahead found of its segment where its headers told no features."""
        if line.features:
            return line
        with self._lock:
            lines = self._lines.get(partition, [])
            at = bisect.bisect_left(lines, line.offset, key=_offset)
            if at == len(lines) or lines[at].offset != line.offset:
                return line
            seen = lines[at]
        return replace(line, features=seen.features, duration_seconds=line.duration_seconds or seen.duration_seconds)

    def waiting(self) -> dict[int, list[Seen]]:
        """By partition, what waits to be processed, in order."""
        with self._lock:
            found = {}
            for partition, lines in self._lines.items():
                found[partition] = lines[bisect.bisect_left(lines, self._next[partition], key=_offset) :]
            return found

    def known(self) -> dict[int, list[Seen]]:
        """By partition, every line: the waiting ones and those right before them."""
        with self._lock:
            return {partition: list(lines) for partition, lines in self._lines.items()}


class Scout:
    """The thread that fills an `Ahead`. The owner calls `own`, `disown` and `close`."""

    def __init__(self, client: Mapping[str, Any], ahead: Ahead, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._consumer = Consumer(_settings(client))
        self._ahead = ahead
        self._clock = clock
        self._surveyor = Surveyor()
        self._wanted: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scout", daemon=True)
        self._thread.start()

    def own(self, partition: int, next_offset: int) -> None:
        """Read the partition from some segments before `next_offset` on."""
        self._ahead.own(partition, next_offset)
        with self._lock:
            self._wanted[partition] = max(0, next_offset - BEHIND_SEGMENTS)

    def disown(self, partition: int) -> None:
        with self._lock:
            self._wanted.pop(partition, None)
        self._ahead.disown(partition)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        assigned: set[int] = set()
        paused: set[int] = set()
        try:
            while not self._stop.is_set():
                self._follow(assigned)
                paused &= assigned
                self._pause(assigned, paused)
                for message in self._consumer.consume(_BATCH, timeout=_POLL_SECONDS):
                    self._take(message)
        except KafkaException as error:
            # Look-ahead is a help, never needed: without it the last prices and the lanes' own queues remain.
            metrics.SCOUT_FAILURES.labels("consumer").inc()
            log.warning("scout_stopped", error=str(error))
        finally:
            self._consumer.close()

    def _follow(self, assigned: set[int]) -> None:
        with self._lock:
            wanted = dict(self._wanted)
        gone = assigned - wanted.keys()
        if gone:
            self._consumer.incremental_unassign([TopicPartition(topics.SEGMENTS, one) for one in gone])
        come = wanted.keys() - assigned
        if come:
            self._consumer.incremental_assign([TopicPartition(topics.SEGMENTS, one, wanted[one]) for one in come])
        assigned -= gone
        assigned |= come

    def _pause(self, assigned: set[int], paused: set[int]) -> None:
        """A partition of which enough is known waits until some of it is processed."""
        full = {partition for partition in assigned if self._ahead.full(partition)}
        if full - paused:
            self._consumer.pause([TopicPartition(topics.SEGMENTS, one) for one in full - paused])
        if paused - full:
            self._consumer.resume([TopicPartition(topics.SEGMENTS, one) for one in paused - full])
        paused.clear()
        paused.update(full)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.fatal():
                raise KafkaException(error)
            if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name for it
                metrics.SCOUT_FAILURES.labels("read").inc()
            return
        headers, _ = decode_headers(headers_of(message))
        stream_id = (message.key() or b"").decode("ascii", errors="replace")
        headers = self._surveyor.complete(stream_id, headers, message.value() or b"")
        self._ahead.add(
            message.partition() or 0,
            Seen(
                offset=message.offset() or 0,
                stream_id=stream_id,
                arrived_seconds=arrived_seconds(message, self._clock()),
                event_seconds=message.timestamp()[1] / 1000 if headers.time is None else headers.time.timestamp(),
                duration_seconds=headers.duration_seconds,
                size_bytes=len(message.value() or b""),
                features=headers.features,
            ),
        )


def _offset(line: Seen) -> int:
    return line.offset


def _settings(client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **client,
        # It commits nothing; librdkafka wants a name all the same.
        "group.id": "skyscraper-scout",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Retention that overtakes the scout is the owner's to report.
        "auto.offset.reset": "earliest",
        "queued.max.messages.kbytes": _QUEUED_KBYTES,
        "fetch.message.max.bytes": topics.MAX_MESSAGE_BYTES,
        "topic.metadata.propagation.max.ms": 3000,
    }
