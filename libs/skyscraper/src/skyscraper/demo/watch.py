"""Following an installation from outside: what Kafka holds, what was reported, what the table has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from skyscraper.bus import topics
from skyscraper.v1 import report_pb2

_REQUEST_SECONDS = 10.0


@dataclass(frozen=True)
class Seen:
    """A report with its place and time in Kafka."""

    report: report_pb2.SegmentReport
    committed_seconds: float
    """When the broker took the report; its transaction ends some milliseconds later."""


@dataclass
class StreamView:
    """What is known of one stream so far."""

    stream_id: str
    partition: int = 0
    processed: int = 0
    dead_lettered: int = 0
    duplicates: int = 0
    lost: int = 0
    rows: int = 0
    frames: int = 0
    lag_seconds: float = 0.0
    segment_bytes: int = 0
    video_seconds: float = 0.0


@dataclass
class Totals:
    reports: list[Seen] = field(default_factory=list)
    streams: dict[str, StreamView] = field(default_factory=dict)


class Watch:
    """Reads sky.reports as committed and asks for watermarks. One thread."""

    def __init__(self, client: Mapping[str, Any]) -> None:
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
        metadata = self._consumer.list_topics(topics.REPORTS, timeout=_REQUEST_SECONDS)
        self._partitions = sorted(metadata.topics[topics.REPORTS].partitions)
        self._consumer.assign([TopicPartition(topics.REPORTS, partition, 0) for partition in self._partitions])
        self.totals = Totals()

    def poll(self, seconds: float) -> None:
        """Take in what has been committed, for about so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for message in self._consumer.consume(500, timeout=min(left, 0.2)):
                if message.error() is None:
                    report = report_pb2.SegmentReport.FromString(message.value() or b"")
                    self._take(Seen(report, message.timestamp()[1] / 1000))

    def published(self) -> int:
        """Segments in Kafka. The publisher writes no transactions, so every offset is a segment."""
        return sum(high - low for low, high in self.bounds(topics.SEGMENTS).values())

    def accounted(self) -> int:
        """Segments whose fate is reported."""
        return sum(
            view.processed + view.dead_lettered + view.duplicates + view.lost for view in self.totals.streams.values()
        )

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return {
            partition: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_REQUEST_SECONDS)
            for partition in self._partitions
        }

    def close(self) -> None:
        self._consumer.close()

    def _take(self, seen: Seen) -> None:
        report = seen.report
        self.totals.reports.append(seen)
        view = self.totals.streams.setdefault(report.stream_id, StreamView(report.stream_id))
        view.partition = report.partition
        if report.outcome == report_pb2.OUTCOME_LOST:
            view.lost += report.missing_before
            return
        view.processed += report.outcome == report_pb2.OUTCOME_PROCESSED
        view.dead_lettered += report.outcome == report_pb2.OUTCOME_DEAD_LETTERED
        view.duplicates += report.outcome == report_pb2.OUTCOME_DUPLICATE
        view.rows += report.rows
        view.frames += report.frames_analysed
        view.segment_bytes += report.segment_bytes
        view.video_seconds += report.duration_seconds
        captured = report.event_time.ToDatetime(UTC).timestamp() + report.duration_seconds
        view.lag_seconds = max(0.0, seen.committed_seconds - captured)


def seconds(stamp: Any) -> float:
    """A protobuf timestamp as seconds since the epoch."""
    time_of_day: datetime = stamp.ToDatetime(UTC)
    return time_of_day.timestamp()
