"""Following an installation from outside: what Kafka holds, what was reported, what the table has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skyscraper.bus import topics
from skyscraper.bus.reports import ReportReader, Seen, seconds
from skyscraper.v1 import report_pb2


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
    """Keeps every report, and asks for watermarks: for runs of minutes. One thread."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._reader = ReportReader(client)
        self.totals = Totals()

    def poll(self, seconds: float) -> None:
        """Take in what has been committed, for about so long."""
        for seen in self._reader.poll(seconds):
            self._take(seen)

    def published(self) -> int:
        """Segments in Kafka. The publisher writes no transactions, so every offset is a segment."""
        return sum(high - low for low, high in self.bounds(topics.SEGMENTS).values())

    def accounted(self) -> int:
        """Segments whose fate is reported."""
        return sum(
            view.processed + view.dead_lettered + view.duplicates + view.lost for view in self.totals.streams.values()
        )

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        return self._reader.bounds(topic)

    def close(self) -> None:
        self._reader.close()

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
        captured = seconds(report.event_time) + report.duration_seconds
        view.lag_seconds = max(0.0, seen.committed_seconds - captured)
