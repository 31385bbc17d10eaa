"""The price of burst machines that plans are made with: what was paid lately."""

from __future__ import annotations

import pytest
from skyscraper.v1 import digest_pb2, report_pb2
from skyscraper_tuner.digest import add_to_stream, paid_usd_per_core_second


def reported(usd_per_core_second: float, *, place: report_pb2.Place.ValueType) -> report_pb2.SegmentReport:
    report = report_pb2.SegmentReport(stream_id="s", outcome=report_pb2.OUTCOME_PROCESSED, duration_seconds=1.0)
    report.decision.placement = place
    report.burst_core_seconds = 2.0
    report.burst_nano_usd = round(2e9 * usd_per_core_second)
    return report


def after(reports: list[report_pb2.SegmentReport]) -> digest_pb2.StreamDigest | None:
    digest = None
    for offset, report in enumerate(reports):
        digest = add_to_stream(digest, report, offset, None)
    return digest


def test_a_price_that_changes_is_followed_within_a_few_hundred_segments() -> None:
    cheap = [reported(0.001, place=report_pb2.PLACE_BURST)] * 200
    digest = after(cheap)
    assert digest is not None
    assert paid_usd_per_core_second([digest]) == pytest.approx(0.001)
    dear = after(cheap + [reported(0.003, place=report_pb2.PLACE_BURST)] * 200)
    assert dear is not None
    assert paid_usd_per_core_second([dear]) == pytest.approx(0.003, rel=0.05)
    both = paid_usd_per_core_second([digest, dear, digest_pb2.StreamDigest()])
    assert both == pytest.approx(0.002, rel=0.05)


def test_nothing_is_known_of_a_price_before_anything_was_paid() -> None:
    digest = after([reported(0.001, place=report_pb2.PLACE_POOL)] * 5)
    assert digest is not None
    assert paid_usd_per_core_second([digest]) is None
    assert paid_usd_per_core_second([]) is None
