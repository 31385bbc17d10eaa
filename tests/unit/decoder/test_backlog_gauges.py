"""What a stream's gauges say while its segments wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from skyscraper.control.headroom import Retention
from skyscraper.v1 import report_pb2
from skyscraper_decoder.backlog import BacklogMeter
from skyscraper_decoder.outcome import Outcome

PUBLISHED = datetime(2026, 1, 1, tzinfo=UTC)


class Watermarks:
    """A consumer of which only the end of the log is asked."""

    def __init__(self, high: int) -> None:
        self.high = high

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, self.high


def committed_segment(stream: str, *, next_offset: int) -> Outcome:
    report = report_pb2.SegmentReport(stream_id=stream, segment_bytes=500_000, duration_seconds=2.0)
    report.published_time.FromDatetime(PUBLISHED)
    return Outcome(partition=3, next_offset=next_offset, report=report)


def gauge(name: str, stream: str) -> float | None:
    return REGISTRY.get_sample_value(f"skyscraper_stream_{name}", {"stream": stream})


@pytest.fixture
def meter() -> BacklogMeter:
    return BacklogMeter(Retention(seconds=3600.0, bytes_per_partition=None))


def test_the_oldest_waiting_segment_ages_while_nothing_is_committed(meter: BacklogMeter) -> None:
    meter.committed([committed_segment("aging", next_offset=5)])
    for waited in (10.0, 100.0):
        meter.export(Watermarks(8), [3], PUBLISHED + timedelta(seconds=2 + waited))  # type: ignore[arg-type]
        assert gauge("oldest_waiting_seconds", "aging") == pytest.approx(waited)
        assert gauge("backlog_segments", "aging") == 3


def test_nothing_waits_behind_a_stream_that_ended(meter: BacklogMeter) -> None:
    meter.committed([committed_segment("ended", next_offset=8)])
    meter.export(Watermarks(8), [3], PUBLISHED + timedelta(hours=5))  # type: ignore[arg-type]
    assert gauge("oldest_waiting_seconds", "ended") == 0


def test_a_partition_that_went_to_another_decoder_is_no_longer_told(meter: BacklogMeter) -> None:
    meter.committed([committed_segment("moved", next_offset=5)])
    meter.export(Watermarks(8), [3], PUBLISHED)  # type: ignore[arg-type]
    meter.export(Watermarks(8), [], PUBLISHED)  # type: ignore[arg-type]
    for name in ("oldest_waiting_seconds", "backlog_segments", "headroom_seconds"):
        assert gauge(name, "moved") is None
