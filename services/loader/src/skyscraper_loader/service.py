"""The loader's loop: read committed rows, append them to their tables, keep the tables small. One thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.errors import BusError, BusTimeout
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


class Loader:
    """One loader process, without its signals and its HTTP face."""

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
        self._refused: dict[str, bytes] = {}
        self._opened: dict[str, bytes] = {}
        self._closing = False
        self._consumer = Consumer(_consumer_settings(config))
        self._next_profiles = 0.0
        self._next_maintenance = time.monotonic() + config.maintenance.interval_seconds
        self.last_turn = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.last_turn = time.monotonic()
                self._find_pipelines()
                self._read()
                self._commit(only_due=True)
                self._maintain()
            self._commit(only_due=False)
        finally:
            self._closing = True
            self._consumer.close()
            self._profiles.close()

    def _find_pipelines(self) -> None:
        """Open the tables of pipelines that have a profile by now, and read their topics too."""
        if time.monotonic() < self._next_profiles:
            return
        self._next_profiles = time.monotonic() + _PROFILES_SECONDS
        before = len(self._loadings)
        for key, value in self._profiles.items().items():
            pipeline = key.decode(errors="replace")
            wanted = not self._config.pipelines or pipeline in self._config.pipelines
            if wanted and self._opened.get(pipeline) != value and self._refused.get(pipeline) != value:
                self._open(pipeline, value)
        metrics.WAITING.set(len(self._refused))
        if len(self._loadings) > before:
            self._consumer.subscribe(
                sorted(self._loadings), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    def _open(self, pipeline: str, value: bytes) -> None:
        try:
            schema = RowSchema.from_proto(profile_pb2.Profile.FromString(value).row_schema)
            loading = Loading(self._config, self._catalog, pipeline, schema, self._rejects)
        except (LakehouseError, DecodeError, ValueError) as error:
            # Its rows stay in Kafka; it is tried again when its profile changes.
            self._refused[pipeline] = value
            log.error("table_refused", pipeline=pipeline, error=str(error))  # noqa: TRY400 - the message is the story
            return
        self._refused.pop(pipeline, None)
        topic = topics.rows_topic(pipeline)
        is_reopened = topic in self._loadings
        self._loadings[topic] = loading
        self._opened[pipeline] = value
        if is_reopened:
            # What was held was parsed by the old columns; it is read again from where the table stands.
            self._reread(topic)
        log.info("table_open", pipeline=pipeline)

    def _read(self) -> None:
        if not self._loadings:
            time.sleep(_POLL_SECONDS)
            return
        for message in self._consumer.consume(_MESSAGES_PER_TURN, timeout=_POLL_SECONDS):
            error = message.error()
            if error is None:
                self._loadings[message.topic() or ""].add(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - librdkafka's public name for it
                self._recover_gap(message.topic() or "", message.partition() or 0)
            elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise BusError(f"the consumer cannot go on: {error.str()}; this process ends and must be restarted")
            else:
                log.warning("consumer_error", error=error.str(), code=error.name())

    def _commit(self, *, only_due: bool) -> None:
        for topic, loading in self._loadings.items():
            if only_due and not loading.is_due():
                continue
            try:
                loading.commit()
            except OffsetsMoved as error:
                log.warning("another_loader_was_here", topic=topic, error=str(error))
                self._reread(topic)
            except (LakehouseBusy, BusTimeout) as error:
                log.warning("commit_waits", topic=topic, error=str(error))

    def _maintain(self) -> None:
        if time.monotonic() < self._next_maintenance:
            return
        self._next_maintenance = time.monotonic() + self._config.maintenance.interval_seconds
        for topic, loading in self._loadings.items():
            try:
                loading.maintain(self._config.maintenance)
            except LakehouseBusy as error:
                log.warning("maintenance_waits", topic=topic, error=str(error))

    def _reread(self, topic: str) -> None:
        """Drop what is held of a topic and read its partitions again from where the table stands."""
        partitions = [place.partition for place in self._consumer.assignment() if place.topic == topic]
        loading = self._loadings[topic]
        loading.drop(partitions)
        places = self._places(topic, loading.assign(partitions))
        self._consumer.incremental_unassign(places)
        self._consumer.incremental_assign(places)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        by_topic: dict[str, list[int]] = {}
        for place in assigned:
            if place.topic not in self._loadings:
                # A static member that comes back is first given what it had before; without a table it stays unread.
                log.warning("assignment_without_table", topic=place.topic, partition=place.partition)
                continue
            by_topic.setdefault(place.topic, []).append(place.partition)
        places = []
        for topic, partitions in by_topic.items():
            places += self._places(topic, self._loadings[topic].assign(partitions))
        consumer.incremental_assign(places)
        log.info("partitions_assigned", partitions={topic: sorted(parts) for topic, parts in by_topic.items()})

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        # The next owner reads on from the table: what is committed now, it need not read again.
        self._commit(only_due=False)
        self._give_up(consumer, revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._give_up(consumer, lost)

    def _give_up(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        places = [place for place in places if place.topic in self._loadings]
        consumer.incremental_unassign(places)
        if self._closing:
            # Nothing stays to be read on.
            return
        for topic in {place.topic for place in places}:
            loading = self._loadings[topic]
            loading.drop([place.partition for place in places if place.topic == topic])
            # A batch that could not be committed held rows of the partitions that stay, too.
            self._reread(topic)

    def _places(self, topic: str, starts: dict[int, int | None]) -> list[TopicPartition]:
        places = []
        for partition, start in starts.items():
            try:
                low, _ = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=_REQUEST_SECONDS, cached=False
                )
            except KafkaException as error:
                raise BusTimeout(f"{topic} [{partition}]: no watermarks: {error.args[0].str()}") from error
            if start is not None and low > start:
                self._count_loss(topic, partition, low - start)
            offset = OFFSET_BEGINNING if start is None else max(start, low)
            places.append(TopicPartition(topic, partition, offset))
        return places

    def _recover_gap(self, topic: str, partition: int) -> None:
        """Retention overtook this loader: commit what it holds, then read on at the log's new beginning."""
        self._commit(only_due=False)
        log.warning("position_deleted", topic=topic, partition=partition)
        self._reread(topic)

    def _count_loss(self, topic: str, partition: int, offsets: int) -> None:
        pipeline = topic.removeprefix(topics.rows_topic(""))
        metrics.LOST.labels(pipeline).inc(offsets)
        log.error("rows_lost_to_retention", topic=topic, partition=partition, offsets=offsets)


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
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 32 * 1024,
        # An Iceberg commit on a slow object store must not cost the partitions.
        "max.poll.interval.ms": 300_000,
    }
