"""Which partitions this process owns, and where in each it goes on.

Taking over a partition: the committed offset is fetched stably (KIP-447: it waits for the last owner's open
transaction), then the operator state is read to the end of the log. Because a transaction's records are in the log
before its offsets become visible, that state includes everything up to the offset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.watermarks import watermarks
from skyscraper.v1 import state_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.arrival import arrived_seconds, headers_of
from skyscraper_decoder.config import DecoderConfig
from skyscraper_decoder.lane import Lane
from skyscraper_decoder.step import Segment

log = structlog.get_logger()

_REQUEST_SECONDS = 10.0


@dataclass(frozen=True)
class Start:
    """Where a partition goes on, and what retention took before that."""

    offset: int
    lost: int


def choose_start(committed: int | None, low: int) -> Start:
    """The committed offset, or the log's beginning for a partition never read; never past what can still be read."""
    if committed is None:
        return Start(low, lost=0)
    return Start(max(committed, low), lost=max(0, low - committed))


def usable_states(table: Mapping[bytes, bytes], committed: int) -> list[state_pb2.OperatorState]:
    """The streams' saved states, less those of segments that will be read again.

    That happens when somebody moves the group's offsets back on purpose: those segments are processed anew, from the
    beginning of the streams' memory.
    """
    usable = []
    for value in table.values():
        try:
            state = state_pb2.OperatorState.FromString(value)
        except DecodeError:
            metrics.STATE_RESETS.labels("unreadable").inc()
            continue
        if state.next_offset > committed:
            metrics.STATE_RESETS.labels("offset_moved_back").inc()
            log.warning("state_dropped", stream=state.stream_id, state_offset=state.next_offset, committed=committed)
            continue
        usable.append(state)
    return usable


class Ownership:
    """The consumer and its lanes. One thread calls everything here; rebalances happen inside `poll`."""

    def __init__(
        self,
        config: DecoderConfig,
        open_lane: Callable[[int, int, Sequence[state_pb2.OperatorState]], Lane],
        lane_closed: Callable[[Lane], None],
        commit: Callable[[], None],
    ) -> None:
        self._config = config
        self._open_lane = open_lane
        self._lane_closed = lane_closed
        self._commit = commit
        self.lanes: dict[int, Lane] = {}
        self._paused: set[int] = set()
        self.consumer = Consumer(_consumer_settings(config))
        self.consumer.subscribe(
            [topics.SEGMENTS], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, timeout_seconds: float) -> None:
        """Give one message to its lane, and let lanes that drained be fed again."""
        self._resume()
        message = self.consumer.poll(timeout_seconds)
        if message is None:
            return
        error = message.error()
        if error is None:
            self._dispatch(message)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - librdkafka's public name for it
            self._recover_gap(message.partition() or 0)
        elif error.fatal():
            raise BusError(f"the consumer cannot go on: {error.str()}; this process ends and must be restarted")
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise BusError(f"{topics.SEGMENTS}: {error.str()}; create the topics with `skyscraper topics create`")
        else:
            log.warning("consumer_error", error=error.str(), code=error.name())

    def close(self) -> None:
        """Leave the group; its other members take over at once."""
        for lane in self.lanes.values():
            lane.close()
        self.consumer.close()
        for lane in self.lanes.values():
            lane.join(timeout_seconds=1.0)

    def _dispatch(self, message: Message) -> None:
        partition = message.partition() or 0
        lane = self.lanes.get(partition)
        # A message of a partition that was revoked while it waited in librdkafka's queue.
        if lane is None:
            return
        lane.offer(_segment(message))
        if lane.full and partition not in self._paused:
            self.consumer.pause([TopicPartition(topics.SEGMENTS, partition)])
            self._paused.add(partition)
            metrics.PAUSED.set(len(self._paused))

    def _resume(self) -> None:
        drained = [partition for partition in self._paused if self.lanes[partition].hungry]
        if drained:
            self.consumer.resume([TopicPartition(topics.SEGMENTS, partition) for partition in drained])
            self._paused.difference_update(drained)
            metrics.PAUSED.set(len(self._paused))

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = [place.partition for place in assigned]
        if not partitions:
            consumer.incremental_assign([])
            return
        started = time.monotonic()
        committed = self._committed(partitions)
        tables = read_compacted(
            self._config.kafka.client(),
            topics.STATE,
            partitions,
            # An open transaction of a dead owner ends after its own timeout at the latest.
            deadline_seconds=self._config.transaction_timeout_seconds + _REQUEST_SECONDS,
        )
        starts = []
        for partition in partitions:
            start = choose_start(committed[partition], self._low(partition))
            states = usable_states(tables[partition], start.offset - start.lost)
            self.lanes[partition] = self._open_lane(partition, start.offset, states)
            if start.lost:
                self.lanes[partition].offer_gap(start.offset, start.lost)
            starts.append(TopicPartition(topics.SEGMENTS, partition, start.offset))
        consumer.incremental_assign(starts)
        metrics.STREAMS.set(len(self.lanes))
        log.info("partitions_assigned", partitions=partitions, seconds=round(time.monotonic() - started, 3))

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        # What is finished is committed now, so that the next owner need not repeat it.
        self._commit()
        self._drop(revoked)
        consumer.incremental_unassign(revoked)
        log.info("partitions_revoked", partitions=[place.partition for place in revoked])

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        # Another process may own them already: nothing of theirs may be committed.
        self._drop(lost)
        consumer.incremental_unassign(lost)
        log.warning("partitions_lost", partitions=[place.partition for place in lost])

    def _drop(self, places: Sequence[TopicPartition]) -> None:
        for place in places:
            lane = self.lanes.pop(place.partition, None)
            if lane is not None:
                lane.close()
                self._lane_closed(lane)
            self._paused.discard(place.partition)
        metrics.STREAMS.set(len(self.lanes))
        metrics.PAUSED.set(len(self._paused))

    def _recover_gap(self, partition: int) -> None:
        """Retention overtook this consumer (`auto.offset.reset=error`): go on at the log's new beginning, and say so.

        librdkafka reports the lost position once and then stays silent; assigning the partition anew recovers it.
        """
        lane = self.lanes.get(partition)
        if lane is None:
            return
        # What the lane holds was read before retention struck and stays valid: the loss begins behind it.
        start = choose_start(lane.next_offset, self._low(partition))
        place = TopicPartition(topics.SEGMENTS, partition, start.offset)
        self.consumer.incremental_unassign([place])
        self.consumer.incremental_assign([place])
        self._paused.discard(partition)
        if start.lost:
            lane.offer_gap(start.offset, start.lost)

    def _committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        places = [TopicPartition(topics.SEGMENTS, partition) for partition in partitions]
        try:
            answers = self.consumer.committed(
                places, timeout=self._config.transaction_timeout_seconds + _REQUEST_SECONDS
            )
        except KafkaException as error:
            raise BusTimeout(f"the committed offsets cannot be read: {error.args[0].str()}") from error
        return {answer.partition: None if answer.offset == OFFSET_INVALID else answer.offset for answer in answers}

    def _low(self, partition: int) -> int:
        return watermarks(self.consumer, topics.SEGMENTS, partition, deadline_seconds=_REQUEST_SECONDS)[0]


def _segment(message: Message) -> Segment:
    kind, milliseconds = message.timestamp()
    known = kind != TIMESTAMP_NOT_AVAILABLE
    return Segment(
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value() or b"",
        headers=headers_of(message),
        published_time=datetime.fromtimestamp(milliseconds / 1000 if known else 0, UTC),
        arrived_seconds=arrived_seconds(message, time.monotonic()),
    )


def _consumer_settings(config: DecoderConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        **config.kafka.client(),
        "group.id": config.group,
        # Static membership (KIP-345): a decoder that restarts within the session timeout gets its streams back at
        # once, without a rebalance of the others.
        "group.instance.id": config.instance,
        "group.protocol": config.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # Makes librdkafka ask for stable offsets (KIP-447): none while the last owner's transaction is open.
        "isolation.level": "read_committed",
        # One fetch ahead per stream is enough, and all that a pause throws away: the backlog stays in Kafka.
        "queued.min.messages": 1,
        # How long librdkafka rests once a partition has that one message; its default of a second is latency.
        "fetch.queue.backoff.ms": 20,
        "max.partition.fetch.bytes": 1024 * 1024,
        "fetch.max.bytes": topics.MAX_MESSAGE_BYTES + 1024 * 1024,
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        # A stream whose step takes minutes must not cost the others their partitions; polling never waits for a step.
        "max.poll.interval.ms": 300_000,
    }
    if config.group_protocol == "classic":
        settings["partition.assignment.strategy"] = "cooperative-sticky"
        settings["session.timeout.ms"] = int(config.session_timeout_seconds * 1000)
        settings["heartbeat.interval.ms"] = int(config.session_timeout_seconds * 1000 / 3)
    return settings
