"""One stream's way to the broker: memory, then disk, always in order.

Invariant: what is only on disk is newer than everything in memory. So a segment goes to memory only while nothing
unread is on disk, and before the first segment goes to disk alone, all of memory is written there too (it would be
lost by `kill -9` otherwise). The order of the stream is the order of `memory`, then the unread part of the spill.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import structlog
from skyscraper.bus.headers import Headers
from skyscraper.bus.spill import Spill, SpillFailed, SpillFull

from skyscraper_publisher import metrics

log = structlog.get_logger()

# A broker that refuses a segment is asked again at this rhythm.
RETRY_SECONDS = 1.0
# A full disk is reported at most this often per stream; the counter has every segment.
LOG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """A segment as it goes to Kafka."""

    headers: Headers
    value: bytes

    @property
    def id(self) -> str:
        return next((value.decode() for name, value in self.headers if name == "ce_id"), "")

    def encode(self) -> bytes:
        headers = json.dumps([(name, value.decode()) for name, value in self.headers]).encode()
        return struct.pack(">I", len(headers)) + headers + self.value

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        (length,) = struct.unpack_from(">I", raw)
        headers = json.loads(raw[4 : 4 + length])
        return cls([(name, text.encode()) for name, text in headers], raw[4 + length :])


class Outcome(Enum):
    """What the broker said of a segment."""

    STORED = "stored"
    RETRY = "retry"
    REFUSED = "refused"


# Hands a message to the Kafka client; False: its queue is full. The callback comes later, from another thread.
Send = Callable[[Message, int, Callable[[Outcome, str], None]], bool]


class _State(Enum):
    PENDING = "pending"
    IN_FLIGHT = "in flight"
    DONE = "done"


@dataclass(slots=True)
class _Entry:
    message: Message
    since: float
    state: _State = _State.PENDING
    ordinal: int | None = None
    """Its place in the spill, where it has one."""


class Outbox:
    """Used by the capture's thread (`offer`) and the sender's thread (`pump` and delivery callbacks)."""

    def __init__(
        self,
        stream_id: str,
        send: Send,
        spill: Spill,
        *,
        max_memory_bytes: int,
        spill_after_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream_id = stream_id
        self.partition: int | None = None
        self._send = send
        self._spill = spill
        self._max_memory_bytes = max_memory_bytes
        self._spill_after_seconds = spill_after_seconds
        self._clock = clock
        self._lock = threading.Condition()
        self._memory: deque[_Entry] = deque()
        self._bytes = 0
        self._retry_at = 0.0
        self._logged_at = float("-inf")
        self._away = False
        self._closed = False
        metrics.SPILL_DAMAGED.labels(stream_id, "torn").inc(spill.torn_bytes)
        metrics.SPILL_DAMAGED.labels(stream_id, "corrupt").inc(spill.corrupt_bytes)
        metrics.SPILL_BYTES.labels(stream_id).set(spill.size_bytes)

    @property
    def is_empty(self) -> bool:
        """Everything ever offered is acknowledged or counted as dropped."""
        with self._lock:
            return not self._memory and self._spill.is_empty

    def offer(self, message: Message) -> None:
        """Take a segment, to memory or disk. It is dropped, counted and logged where neither has room."""
        with self._lock:
            if self._closed:
                self._count_dropped("stopped", "the source gave it after the service had stopped")
                return
            if self._has_room(len(message.value)):
                self._remember(message)
                self._produce()
                return
            self._spill_memory()
            self._spill_message(message)

    def offer_when_room(self, message: Message, timeout_seconds: float) -> bool:
        """As `offer`, for a source that can wait: False if memory had no room for so long."""
        with self._lock:
            if not self._lock.wait_for(lambda: self._has_room(len(message.value)), timeout_seconds):
                return False
            self._remember(message)
            self._produce()
            return True

    def pump(self) -> None:
        """Move what can move: memory to disk while the broker is away, disk to memory, memory to the broker."""
        with self._lock:
            if self._broker_is_away():
                self._spill_memory()
            self._refill()
            self._produce()
            metrics.QUEUE_BYTES.labels(self.stream_id).set(self._bytes)

    def close(self) -> None:
        """Keep on disk what was not acknowledged; the next start sends it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._spill_memory()
            unsaved = [entry for entry in self._memory if entry.ordinal is None and entry.state is not _State.DONE]
            if unsaved:
                metrics.SEGMENTS_DROPPED.labels(self.stream_id, "stopped").inc(len(unsaved))
                log.error("segments_lost_at_stop", stream=self.stream_id, segments=len(unsaved))
            elif not self._spill.is_empty:
                log.warning("segments_wait_on_disk", stream=self.stream_id, bytes=self._spill.size_bytes)
            self._spill.close()

    def _has_room(self, size: int) -> bool:
        if self._closed:
            return False
        fits = not self._memory or self._bytes + size <= self._max_memory_bytes
        return fits and not self._spill.has_unread and not self._broker_is_away()

    def _broker_is_away(self) -> bool:
        oldest = self._memory[0] if self._memory else None
        away = oldest is not None and self._clock() - oldest.since > self._spill_after_seconds
        if away != self._away:
            self._away = away
            event = "broker_away_spilling_to_disk" if away else "broker_is_back"
            log.warning(event, stream=self.stream_id, spill_bytes=self._spill.size_bytes)
        return away

    def _remember(self, message: Message, ordinal: int | None = None) -> None:
        self._memory.append(_Entry(message, self._clock(), ordinal=ordinal))
        self._bytes += len(message.value)

    def _produce(self) -> None:
        if self.partition is None or self._clock() < self._retry_at:
            return
        # After a refusal, a segment is sent again only when no later one is on its way: order before speed.
        last_in_flight = max((i for i, e in enumerate(self._memory) if e.state is _State.IN_FLIGHT), default=-1)
        # A copy, and the state set first: a refusal may come back before `_send` returns and shorten the queue.
        for index, entry in enumerate(list(self._memory)):
            if entry.state is not _State.PENDING:
                continue
            if index < last_in_flight:
                return
            entry.state = _State.IN_FLIGHT
            if not self._send(entry.message, self.partition, self._answer(entry)):
                entry.state = _State.PENDING
                return

    def _answer(self, entry: _Entry) -> Callable[[Outcome, str], None]:
        def delivered(outcome: Outcome, error: str) -> None:
            with self._lock:
                self._settle(entry, outcome, error)

        return delivered

    def _settle(self, entry: _Entry, outcome: Outcome, error: str) -> None:
        if outcome is Outcome.RETRY:
            entry.state = _State.PENDING
            self._retry_at = self._clock() + RETRY_SECONDS
            metrics.DELIVERY_RETRIES.labels(self.stream_id).inc()
            self._log_seldom("segment_sent_again", error=error)
            return
        entry.state = _State.DONE
        if outcome is Outcome.REFUSED:
            self._count_dropped("refused", error)
        else:
            metrics.SEGMENTS.labels(self.stream_id).inc()
            metrics.BYTES.labels(self.stream_id).inc(len(entry.message.value))
            metrics.LAST_PUBLISHED.labels(self.stream_id).set_to_current_time()
        while self._memory and self._memory[0].state is _State.DONE:
            first = self._memory.popleft()
            self._bytes -= len(first.message.value)
            if first.ordinal is not None:
                self._spill.acknowledge(first.ordinal)
        # The broker answers: what still waits is only late, not stuck.
        for waiting in self._memory:
            waiting.since = self._clock()
        metrics.SPILL_BYTES.labels(self.stream_id).set(self._spill.size_bytes)
        self._lock.notify_all()

    def _refill(self) -> None:
        while self._spill.has_unread and (not self._memory or self._bytes < self._max_memory_bytes):
            try:
                record = self._spill.read()
            except SpillFailed as error:
                self._log_seldom("spill_unreadable", error=str(error))
                return
            if record is None:
                return
            self._remember(Message.decode(record.payload), record.ordinal)

    def _spill_memory(self) -> None:
        for entry in self._memory:
            if entry.ordinal is None and entry.state is not _State.DONE:
                try:
                    entry.ordinal = self._spill.append(entry.message.encode())
                except (SpillFull, SpillFailed) as error:
                    # It is still in memory, so it is not lost yet.
                    self._log_seldom("spill_refused", error=str(error))
                    return
                self._spill.mark_read(entry.ordinal)
                metrics.SPILLED.labels(self.stream_id).inc()
        metrics.SPILL_BYTES.labels(self.stream_id).set(self._spill.size_bytes)

    def _spill_message(self, message: Message) -> None:
        try:
            self._spill.append(message.encode())
        except SpillFull as error:
            self._count_dropped("spill_full", str(error))
        except SpillFailed as error:
            self._count_dropped("spill_failed", str(error))
        else:
            metrics.SPILLED.labels(self.stream_id).inc()
            metrics.SPILL_BYTES.labels(self.stream_id).set(self._spill.size_bytes)

    def _count_dropped(self, reason: str, error: str) -> None:
        metrics.SEGMENTS_DROPPED.labels(self.stream_id, reason).inc()
        self._log_seldom("segment_dropped", reason=reason, error=error)

    def _log_seldom(self, event: str, **fields: str) -> None:
        if self._clock() - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._clock()
            log.error(event, stream=self.stream_id, **fields)
