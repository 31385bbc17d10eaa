"""Following `sky.reports`: what became of segments, as committed, from the beginning or from some time on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition
from google.protobuf.message import DecodeError

from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.offsets import Offsets
from skyscraper.bus.topics import REPORTS
from skyscraper.bus.watermarks import watermarks
from skyscraper.v1 import report_pb2

log = structlog.get_logger()

_REQUEST_SECONDS = 10.0
# Messages taken at once: what a thousand streams report in a second.
_BATCH = 500
# Offsets before the end in which the newest report is found: others may be transaction markers, two per report.
_LOOK_BACK = 8
# Topics grow with the streams; looked at so often.
_PARTITIONS_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """A report with its time in Kafka."""

    report: report_pb2.SegmentReport
    committed_seconds: float
    """When the broker took the report; its transaction ends some milliseconds later."""


def seconds(stamp: Any) -> float:
    """A protobuf timestamp as seconds since the epoch."""
    time_of_day: datetime = stamp.ToDatetime(UTC)
    return time_of_day.timestamp()


class ReportReader:
    """Reads all partitions. One thread. Rides out a broker that restarts: it goes on where it was."""

    def __init__(self, client: Mapping[str, Any], *, since_seconds: float | None = None) -> None:
        """From `since_seconds` (wall clock) on; None is the beginning. Raises BusTimeout, BusError."""
        self._consumer = Consumer(
            {
                **client,
                "group.id": "skyscraper-watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # The broker may be restarted under our eyes; that is no news to print.
                "log_level": 2,
            }
        )
        try:
            self.partitions = self._partitions()
            self._offsets = Offsets(client, REPORTS, request_seconds=_REQUEST_SECONDS)
            self._consumer.assign(self._starts(since_seconds))
            # Looked at again after a while, when there may be more.
            self._looked = time.monotonic()
            self._ends: dict[int, int] | None = None
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, seconds: float) -> Iterator[Seen]:
        """What has been committed, for about so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            yield from self.take(min(left, 0.2))

    def take(self, timeout_seconds: float) -> list[Seen]:
        """Up to a batch of what is there."""
        self._look_for_partitions()
        found = []
        for message in self._consumer.consume(_BATCH, timeout=timeout_seconds):
            if message.error() is not None:
                continue
            try:
                report = report_pb2.SegmentReport.FromString(message.value() or b"")
            except DecodeError as error:
                log.warning("no_report", partition=message.partition(), offset=message.offset(), error=str(error))
                continue
            found.append(Seen(report, message.timestamp()[1] / 1000))
        return found

    def behind(self) -> bool:
        """Whether something is left of what was committed when the reader was made. Raises BusTimeout."""
        if self._ends is None:
            self._ends = {
                partition: bounds.high
                for partition, bounds in self._offsets.bounds(self.partitions, committed=True).items()
                if bounds.high > bounds.low and not self._starts_at_end[partition]
            }
        if self._ends:
            # The position, not the last report: a log ends in transaction markers, which are never delivered.
            for place in self._consumer.position([TopicPartition(REPORTS, partition) for partition in self._ends]):
                if place.offset >= self._ends[place.partition]:
                    del self._ends[place.partition]
        return bool(self._ends)

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """First offset and end of the topic's partitions, as many as `sky.reports` has. Raises BusTimeout."""
        return {
            partition: watermarks(self._consumer, topic, partition, deadline_seconds=_REQUEST_SECONDS)
            for partition in self.partitions
        }

    def close(self) -> None:
        self._consumer.close()

    def _starts(self, since_seconds: float | None) -> list[TopicPartition]:
        self._starts_at_end = dict.fromkeys(self.partitions, False)
        if since_seconds is None:
            return [TopicPartition(REPORTS, partition, 0) for partition in self.partitions]
        wanted = [TopicPartition(REPORTS, partition, int(since_seconds * 1000)) for partition in self.partitions]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            raise BusTimeout(f"Kafka does not answer about {REPORTS}: {error.args[0].str()}") from error
        starts = {place.partition: place.offset for place in found}
        silent = [partition for partition, offset in starts.items() if offset < 0]
        # Of a partition without reports since then the newest is still worth knowing: it says how far the stream is.
        for partition, bounds in self._offsets.bounds(silent, committed=True).items():
            empty = bounds.high == bounds.low
            starts[partition] = OFFSET_END if empty else max(bounds.low, bounds.high - _LOOK_BACK)
        self._starts_at_end = {partition: offset == OFFSET_END for partition, offset in starts.items()}
        return [TopicPartition(REPORTS, partition, offset) for partition, offset in starts.items()]

    def _look_for_partitions(self) -> None:
        if time.monotonic() - self._looked < _PARTITIONS_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            now = self._partitions()
        except (BusTimeout, BusError) as error:
            log.info("partitions_unknown", topic=REPORTS, error=str(error))
            return
        added = [partition for partition in now if partition not in self.partitions]
        if added:
            self.partitions = now
            self._starts_at_end |= dict.fromkeys(added, False)
            self._consumer.incremental_assign([TopicPartition(REPORTS, partition, 0) for partition in added])

    def _partitions(self) -> list[int]:
        try:
            metadata = self._consumer.list_topics(REPORTS, timeout=_REQUEST_SECONDS).topics[REPORTS]
        except KafkaException as error:
            raise BusTimeout(f"Kafka does not answer about {REPORTS}: {error.args[0].str()}") from error
        if metadata.error is not None:
            raise BusError(f"topic {REPORTS}: {metadata.error.str()}; create it with `skyscraper topics create`")
        return sorted(metadata.partitions)


def last_reports(
    client: Mapping[str, Any], stream_id: str, partition: int, count: int, *, deadline_seconds: float
) -> list[Seen]:
    """The stream's newest reports, oldest first. Raises BusTimeout, BusError."""
    deadline = time.monotonic() + deadline_seconds
    consumer = Consumer(
        {
            **client,
            "group.id": "skyscraper-watch",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "log_level": 2,
        }
    )
    try:
        low, high = watermarks(consumer, REPORTS, partition, deadline_seconds=deadline_seconds)
        # Every transaction leaves a marker, which takes an offset; and others' reports may lie between.
        reach = 4 * count
        while True:
            start = max(low, high - reach)
            found = _read(consumer, TopicPartition(REPORTS, partition, start), high, stream_id, deadline)
            if len(found) >= count or start == low:
                return found[-count:]
            reach *= 8
    except KafkaException as error:
        raise BusTimeout(f"Kafka does not answer about {REPORTS} [{partition}]: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, start: TopicPartition, high: int, stream_id: str, deadline: float) -> list[Seen]:
    consumer.assign([start])
    found = []
    while start.offset < high and consumer.position([start])[0].offset < high:
        if time.monotonic() >= deadline:
            raise BusTimeout(f"reading {start.topic} [{start.partition}] to its end took too long")
        for message in consumer.consume(_BATCH, timeout=0.1):
            if message.error() is None and message.key() == stream_id.encode():
                report = report_pb2.SegmentReport.FromString(message.value() or b"")
                found.append(Seen(report, message.timestamp()[1] / 1000))
    return found
