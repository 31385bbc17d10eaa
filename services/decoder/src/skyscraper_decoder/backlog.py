"""How far behind each stream is, and how long retention still waits for it: exported, and alerted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, TopicPartition
from skyscraper.bus import topics
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds, limit_seconds

from skyscraper_decoder import metrics
from skyscraper_decoder.outcome import Outcome

# How much the newest segment counts in a stream's mean segment size: about the last ten.
_NEWEST_SHARE = 0.1


@dataclass
class _Stream:
    stream_id: str
    next_offset: int
    published_time: datetime
    segment_bytes: float
    segment_seconds: float


class BacklogMeter:
    """Learns from commits, asks the consumer's cached watermarks. One thread."""

    def __init__(self, retention: Retention, *, limit_seconds: float | None = None, safety: float = 1.0) -> None:
        self._retention = retention
        self._limit_seconds = limit_seconds
        self._safety = safety
        self._streams: dict[int, _Stream] = {}

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            report = outcome.report
            if not report.stream_id or not report.segment_bytes:
                continue
            before = self._streams.get(outcome.partition)
            share = 1.0 if before is None or before.stream_id != report.stream_id else _NEWEST_SHARE
            old_bytes, old_seconds = (before.segment_bytes, before.segment_seconds) if before else (0.0, 0.0)
            self._streams[outcome.partition] = _Stream(
                report.stream_id,
                outcome.next_offset,
                report.published_time.ToDatetime(UTC),
                old_bytes + share * (report.segment_bytes - old_bytes),
                old_seconds + share * (report.duration_seconds - old_seconds),
            )

    def limit_seconds(self, partition: int) -> float:
        """How long a segment of the partition may wait; infinite without any limit."""
        if self._limit_seconds is not None:
            return self._limit_seconds
        stream = self._streams.get(partition)
        rate = stream.segment_bytes / stream.segment_seconds if stream is not None and stream.segment_seconds else 0.0
        return limit_seconds(self._retention, rate, self._safety)

    def export(self, consumer: Consumer, partitions: Sequence[int], now: datetime) -> None:
        """Set the gauges of the owned partitions; those of lost ones go with their new owner."""
        for partition in [one for one in self._streams if one not in partitions]:
            stream = self._streams.pop(partition)
            for gauge in (metrics.BACKLOG_SEGMENTS, metrics.OLDEST_WAITING_SECONDS, metrics.HEADROOM_SECONDS):
                gauge.remove(stream.stream_id)
        for partition, stream in self._streams.items():
            _, high = consumer.get_watermark_offsets(TopicPartition(topics.SEGMENTS, partition), cached=True)
            waiting = max(0, high - stream.next_offset)
            # The oldest waiting segment was published one segment after the last that was committed.
            age = (now - stream.published_time).total_seconds() - stream.segment_seconds if waiting else 0.0
            rate = stream.segment_bytes / stream.segment_seconds if stream.segment_seconds > 0 else 0.0
            backlog = Backlog(max(0.0, age), int(waiting * stream.segment_bytes), rate)
            metrics.BACKLOG_SEGMENTS.labels(stream.stream_id).set(waiting)
            metrics.OLDEST_WAITING_SECONDS.labels(stream.stream_id).set(backlog.oldest_age_seconds)
            metrics.HEADROOM_SECONDS.labels(stream.stream_id).set(headroom_seconds(backlog, self._retention))
