"""What reports say of every stream lately, in memory that does not grow with time.

Of each stream the newest reports are kept, and sums by minute for the last hour: about 17 kB (measured), so that a
thousand streams take 17 MB however long they are watched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, fields

from skyscraper.bus.reports import Seen, seconds
from skyscraper.v1 import report_pb2

WINDOW_SECONDS = 3_600.0
_MINUTE = 60.0


@dataclass(slots=True)
class Minute:
    """Sums over the segments whose reports came in one minute."""

    minute: int
    processed: int = 0
    quality: float = 0.0
    core_seconds: float = 0.0
    video_seconds: float = 0.0
    segment_bytes: int = 0
    lost: int = 0
    dead_lettered: int = 0
    rows: int = 0
    guarded: int = 0
    floor: int = 0

    def add(self, other: Minute) -> None:
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def since_seconds(self) -> float:
        return self.minute * _MINUTE

    @property
    def mean_quality(self) -> float | None:
        return self.quality / self.processed if self.processed else None


_SUMS = tuple(one.name for one in fields(Minute) if one.name != "minute")


@dataclass
class StreamLately:
    """One stream: its newest processed segment, and the last hour."""

    stream_id: str
    partition: int = 0
    newest: Seen | None = None
    """The newest of any outcome."""
    processed: Seen | None = None
    """The newest that was processed."""
    next_offset: int = 0
    """Of `sky.segments`: behind the last segment whose fate is known."""
    minutes: deque[Minute] = field(default_factory=deque)

    def take(self, seen: Seen) -> None:
        report = seen.report
        self.newest = seen
        self.partition = report.partition
        lost = report.outcome == report_pb2.OUTCOME_LOST
        self.next_offset = max(self.next_offset, report.offset + (report.missing_before if lost else 1))
        minute = self._minute(seen.committed_seconds)
        if lost:
            minute.lost += report.missing_before
            return
        minute.core_seconds += report.decoder_core_seconds + report.inference_core_seconds
        minute.video_seconds += report.duration_seconds
        minute.segment_bytes += report.segment_bytes
        if report.outcome == report_pb2.OUTCOME_DEAD_LETTERED:
            minute.dead_lettered += 1
        if report.outcome != report_pb2.OUTCOME_PROCESSED:
            return
        self.processed = seen
        minute.processed += 1
        minute.quality += report.quality
        minute.rows += report.rows
        minute.guarded += report.decision.rule == report_pb2.RULE_GUARDED
        minute.floor += report.decision.rule == report_pb2.RULE_FLOOR

    def last(self, window_seconds: float, now_seconds: float) -> Minute:
        """Sums over the window, to whole minutes, the running one included."""
        first = int((now_seconds - window_seconds) // _MINUTE) + 1
        total = Minute(first)
        for minute in self.minutes:
            if minute.minute >= first:
                total.add(minute)
        return total

    @property
    def densest_bytes_per_second(self) -> float:
        """Of the hour's minutes; of video time, not of wall time: a backlog is worked off faster than it came."""
        return max((one.segment_bytes / one.video_seconds for one in self.minutes if one.video_seconds > 0), default=0)

    def _minute(self, at_seconds: float) -> Minute:
        number = int(at_seconds // _MINUTE)
        # A transaction's reports carry times that may lie a moment before others' that were read first.
        if not self.minutes or number > self.minutes[-1].minute:
            self.minutes.append(Minute(number))
        while self.minutes[0].minute <= self.minutes[-1].minute - WINDOW_SECONDS / _MINUTE:
            self.minutes.popleft()
        return self.minutes[-1]


class Fleet:
    """All streams. One thread."""

    def __init__(self) -> None:
        self.streams: dict[str, StreamLately] = {}
        self.first_seconds: float | None = None
        """When the first report that was taken in was committed: windows are no longer than since then."""

    def take(self, seen: Seen, owners: Mapping[int, str]) -> None:
        """`owners`: the registered stream of each partition, for reports that could not tell it."""
        stream_id = seen.report.stream_id or owners.get(seen.report.partition)
        if not stream_id:
            return
        if self.first_seconds is None or seen.committed_seconds < self.first_seconds:
            self.first_seconds = seen.committed_seconds
        if stream_id not in self.streams:
            self.streams[stream_id] = StreamLately(stream_id)
        self.streams[stream_id].take(seen)

    def forget_before(self, seconds_ago: float, now_seconds: float, keep: Container[str]) -> None:
        """Drop streams that reported nothing for so long, but for those to keep."""
        for stream_id, lately in list(self.streams.items()):
            if stream_id in keep:
                continue
            if lately.newest is None or lately.newest.committed_seconds < now_seconds - seconds_ago:
                del self.streams[stream_id]


def published_seconds(report: report_pb2.SegmentReport) -> float:
    """When Kafka took the segment; its last frame's time where that is not told."""
    if report.HasField("published_time"):
        return seconds(report.published_time)
    return seconds(report.event_time) + report.duration_seconds
