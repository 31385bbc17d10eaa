"""The loader's loop: read committed rows, append them to their tables, keep the tables small. One thread."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.profiles import is_versioned
from skyscraper.bus.watermarks import watermarks
from skyscraper.errors import SkyscraperError
from skyscraper.lakehouse.catalog import open_catalog
from skyscraper.lakehouse.errors import LakehouseBusy, LakehouseError, OffsetsMoved
from skyscraper.pipeline.rows import RowSchema
from skyscraper.service import Health
from skyscraper.v1 import profile_pb2

from skyscraper_loader import metrics
from skyscraper_loader.config import LoaderConfig
from skyscraper_loader.loading import Loading
from skyscraper_loader.rejects import Rejects

log = structlog.get_logger()

_START_SECONDS = 30.0
_POLL_SECONDS = 0.1
_MESSAGES_PER_TURN = 2000
_REQUEST_SECONDS = 10.0
# How often sky.profiles is asked for pipelines that came since.
_PROFILES_SECONDS = 2.0
# A commit of a full batch takes seconds on slow object stores; a loop that stands still longer is hung.
_ALIVE_SECONDS = 180.0
# A profile that the table cannot take; a table without offsets; a topic that is not the one the table was loaded from.
_WAITING_REASONS = ("schema", "table", "topic")


class Loader:
    """One loader process, without its signals and its HTTP face.

    Order is everything here. Offsets come from the tables only. A *rewind* drops what a topic's batch holds and reads
    its partitions again from where the table stands; it happens between two calls of `consume`, never while the
    messages of one are being taken: a message fetched before a rewind and taken after it would be loaded twice.
    """

    def __init__(self, config: LoaderConfig) -> None:
        self._config = config
        client = config.kafka.client()
        self._catalog = open_catalog(config.catalog)
        self._profiles = CompactedTable(client, topics.PROFILES)
        try:
            self._profiles.start(deadline_seconds=_START_SECONDS)
        except SkyscraperError:
            self._profiles.close()
            raise
        self._rejects = Rejects(client)
        self._loadings: dict[str, Loading] = {}
        # By pipeline, the profile that was looked at last.
        self._seen: dict[str, bytes] = {}
        # By pipeline, why its rows wait in Kafka: a word for the metric.
        self._waiting: dict[str, str] = {}
        # Topics whose partitions came or went since the last turn.
        self._rebalanced: set[str] = set()
        self._paused: set[str] = set()
        # By partition, up to where its losses are counted: a gap is met again at every rewind before its commit.
        self._counted: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(_consumer_settings(config))
        self._next_profiles = 0.0
        self._next_maintenance = time.monotonic() + config.maintenance.interval_seconds
        self.last_turn = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.last_turn = time.monotonic()
                self._look_for_pipelines()
                self._read()
                self._commit(only_due=True)
                self._pause_or_resume()
                self._maintain()
            self._commit(only_due=False)
        finally:
            self._consumer.close()
            self._profiles.close()

    def _look_for_pipelines(self) -> None:
        """Open the tables of pipelines that have a profile by now, and follow profiles that changed."""
        if time.monotonic() < self._next_profiles:
            return
        self._next_profiles = time.monotonic() + _PROFILES_SECONDS
        before = len(self._loadings)
        for key, value in self._profiles.items().items():
            pipeline = key.decode(errors="replace")
            if is_versioned(key):
                # One fit of many: it says nothing of the rows.
                continue
            if not self._config.pipelines or pipeline in self._config.pipelines:
                self._follow_profile(pipeline, value)
        if len(self._loadings) > before:
            self._consumer.subscribe(
                sorted(self._loadings), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        for pipeline, reason in list(self._waiting.items()):
            if reason != "schema" and topics.rows_topic(pipeline) in self._loadings:
                self._rewind(topics.rows_topic(pipeline), reason)
        for reason in _WAITING_REASONS:
            metrics.WAITING.labels(reason).set(list(self._waiting.values()).count(reason))
        for topic, loading in self._loadings.items():
            metrics.LAG_ROWS.labels(loading.pipeline).set(self._lag_rows(topic))

    def _follow_profile(self, pipeline: str, value: bytes) -> None:
        """Open or evolve the pipeline's table. What cannot be leaves its rows in Kafka until the profile changes."""
        if self._seen.get(pipeline) == value:
            return
        topic = topics.rows_topic(pipeline)
        try:
            schema = RowSchema.from_proto(profile_pb2.Profile.FromString(value).row_schema)
            if topic in self._loadings:
                self._loadings[topic].adopt(schema)
            else:
                self._loadings[topic] = Loading(self._config, self._catalog, pipeline, schema, self._rejects)
        except LakehouseBusy as error:
            log.warning("table_waits", pipeline=pipeline, error=str(error))
            return
        except (LakehouseError, DecodeError, ValueError) as error:
            self._seen[pipeline] = value
            self._wait(pipeline, "schema", str(error))
            return
        self._seen[pipeline] = value
        if self._waiting.get(pipeline) == "schema":
            del self._waiting[pipeline]
            # Messages that came meanwhile were left out.
            self._rebalanced.add(topic)
        log.info("table_open", pipeline=pipeline)

    def _look_for_newer_schema(self, pipeline: str) -> bool:
        """Called for a row with unknown columns: its profile was written before it. False where its rows must wait."""
        try:
            self._profiles.refresh(deadline_seconds=_REQUEST_SECONDS)
        except SkyscraperError as error:
            log.warning("profiles_not_read", error=str(error))
        value = self._profiles.get(pipeline.encode())
        if value is not None:
            self._follow_profile(pipeline, value)
        return pipeline not in self._waiting

    def _read(self) -> None:
        if not self._loadings:
            time.sleep(_POLL_SECONDS)
            return
        messages = self._consumer.consume(_MESSAGES_PER_TURN, timeout=_POLL_SECONDS)
        # Of these topics nobody can say which messages were fetched before and which after the change.
        unclear, self._rebalanced = self._rebalanced, set()
        overtaken = set()
        for message in messages:
            topic, error = message.topic() or "", message.error()
            loading = self._loadings.get(topic)
            if error is None:
                if loading is not None and topic not in unclear and loading.pipeline not in self._waiting:
                    loading.add(message, partial(self._look_for_newer_schema, loading.pipeline))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name for it
                if loading is not None and topic not in unclear and loading.pipeline not in self._waiting:
                    loading.reach(message.partition() or 0, message.offset() or 0)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - librdkafka's public name for it
                if loading is not None and loading.pipeline not in self._waiting:
                    overtaken.add(topic)
                    log.warning("position_out_of_range", topic=topic, partition=message.partition())
            elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise BusError(f"the consumer cannot go on: {error.str()}; this process ends and must be restarted")
            else:
                log.warning("consumer_error", error=error.str(), code=error.name())
        for topic in unclear:
            self._rewind(topic, "rebalance")
        for topic in overtaken - unclear:
            # What is held is whole and need not be read again.
            self._commit_topic(topic)
            self._rewind(topic, "out_of_range")

    def _commit(self, *, only_due: bool) -> None:
        for topic, loading in self._loadings.items():
            if (not only_due or loading.is_due()) and not self._commit_topic(topic):
                self._rewind(topic, "offsets_moved")

    def _commit_topic(self, topic: str) -> bool:
        """False where another loader moved the table: what is held can never be committed."""
        try:
            self._loadings[topic].commit()
        except OffsetsMoved as error:
            log.warning("another_loader_was_here", topic=topic, error=str(error))
            return False
        except (LakehouseBusy, BusTimeout) as error:
            log.warning("commit_waits", topic=topic, error=str(error))
        except LakehouseError as error:
            self._wait(self._loadings[topic].pipeline, "table", str(error))
        return True

    def _pause_or_resume(self) -> None:
        """A topic whose batch is full and cannot be committed, or whose rows wait, is not fetched; the others are."""
        for topic, loading in self._loadings.items():
            stand = loading.is_full() or loading.pipeline in self._waiting
            if stand != (topic in self._paused):
                places = self._assigned(topic)
                if stand:
                    self._consumer.pause(places)
                    self._paused.add(topic)
                else:
                    self._consumer.resume(places)
                    self._paused.discard(topic)

    def _maintain(self) -> None:
        if time.monotonic() < self._next_maintenance:
            return
        self._next_maintenance = time.monotonic() + self._config.maintenance.interval_seconds
        for topic, loading in self._loadings.items():
            try:
                loading.maintain(self._config.maintenance)
            except (LakehouseBusy, LakehouseError) as error:
                log.warning("maintenance_waits", topic=topic, error=str(error))

    def _rewind(self, topic: str, reason: str) -> None:
        """Drop what is held of a topic and read its partitions again from where the table stands."""
        loading = self._loadings[topic]
        metrics.REWINDS.labels(loading.pipeline, reason).inc()
        places = self._assigned(topic)
        loading.drop([place.partition for place in places])
        fresh = self._places(topic, [place.partition for place in places])
        if topic in self._paused:
            # librdkafka keeps a partition paused over a new assignment.
            self._consumer.resume(places)
            self._paused.discard(topic)
        self._consumer.incremental_unassign(places)
        self._consumer.incremental_assign(fresh)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        places = []
        for topic in {place.topic for place in assigned}:
            if topic not in self._loadings:
                # A static member that comes back is first given what it had before; without a table it stays unread.
                log.warning("assignment_without_table", topic=topic)
                continue
            partitions = [place.partition for place in assigned if place.topic == topic]
            places += self._places(topic, partitions)
            self._rebalanced.add(topic)
            log.info("partitions_assigned", topic=topic, partitions=sorted(partitions))
        consumer.incremental_assign(places)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        # The next owner reads on from the table: what is committed now, it need not read again.
        for topic in {place.topic for place in revoked} & self._loadings.keys():
            self._commit_topic(topic)
        self._on_lost(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        lost = [place for place in lost if place.topic in self._loadings]
        # They may come back, and must not be paused then.
        consumer.resume(lost)
        consumer.incremental_unassign(lost)
        for topic in {place.topic for place in lost}:
            self._loadings[topic].drop([place.partition for place in lost if place.topic == topic])
            self._rebalanced.add(topic)

    def _places(self, topic: str, partitions: list[int]) -> list[TopicPartition]:
        """Where to read on in each partition. Raises BusTimeout and LakehouseBusy."""
        loading = self._loadings[topic]
        try:
            starts = loading.assign(partitions)
        except LakehouseError as error:
            self._wait(loading.pipeline, "table", str(error))
            return [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions]
        places, ahead = [], ""
        for partition, start in starts.items():
            low, high = watermarks(self._consumer, topic, partition, deadline_seconds=_REQUEST_SECONDS)
            if start is not None and start > high:
                ahead = (
                    f"the table has rows of {topic} [{partition}] up to offset {start}, but the topic ends at {high}: "
                    "was the topic made anew, or is this another cluster? Give the loader a new warehouse or namespace"
                )
            if start is not None and low > start:
                self._count_loss(topic, partition, start, low)
            places.append(TopicPartition(topic, partition, OFFSET_BEGINNING if start is None else max(start, low)))
        if ahead:
            self._wait(loading.pipeline, "topic", ahead)
        elif self._waiting.get(loading.pipeline) in ("table", "topic"):
            del self._waiting[loading.pipeline]
        return places

    def _assigned(self, topic: str) -> list[TopicPartition]:
        return [place for place in self._consumer.assignment() if place.topic == topic]

    def _lag_rows(self, topic: str) -> int:
        lag = 0
        assigned = self._assigned(topic)
        for place in self._consumer.position(assigned) if assigned else ():
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            # Both are negative where nothing was fetched yet.
            if place.offset >= 0 and high >= 0:
                lag += max(0, high - place.offset)
        return lag

    def _wait(self, pipeline: str, reason: str, why: str) -> None:
        """A refused profile goes before other reasons: only a newer profile ends it."""
        if self._waiting.get(pipeline) in (reason, "schema"):
            return
        log.error("table_refused", pipeline=pipeline, reason=reason, error=why)
        self._waiting[pipeline] = reason

    def _count_loss(self, topic: str, partition: int, start: int, low: int) -> None:
        lost = low - max(start, self._counted.get((topic, partition), start))
        self._counted[topic, partition] = low
        if lost > 0:
            metrics.LOST.labels(self._loadings[topic].pipeline).inc(lost)
            log.error("rows_lost_to_retention", topic=topic, partition=partition, offsets=lost, first=start, next=low)


def serve(config: LoaderConfig, health: Health, stop: threading.Event) -> None:
    loader = Loader(config)
    health.alive = lambda: time.monotonic() - loader.last_turn < _ALIVE_SECONDS
    health.set_ready(True)
    loader.run(stop)


def _consumer_settings(config: LoaderConfig) -> dict[str, Any]:
    return {
        **config.kafka.client(),
        "group.id": config.group,
        # No static membership here: a member that is back within its session would get its old assignment without a
        # rebalance, and the topic of a pipeline registered meanwhile would stay unread.
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": int(config.session_timeout_seconds * 1000),
        "heartbeat.interval.ms": int(config.session_timeout_seconds * 1000 / 3),
        # The truth about offsets is in the tables.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # The end of a log is an event: offsets after the last row (transaction markers) are done with, too.
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 32 * 1024,
        # An Iceberg commit on a slow object store must not cost the partitions.
        "max.poll.interval.ms": 300_000,
    }
