"""What a commit means for the metrics. Counted after the commit, so that a repeated attempt counts once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from skyscraper.v1 import report_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.outcome import Outcome

_WORDS = {
    report_pb2.OUTCOME_PROCESSED: "processed",
    report_pb2.OUTCOME_DEAD_LETTERED: "dead_lettered",
    report_pb2.OUTCOME_DUPLICATE: "duplicate",
    report_pb2.OUTCOME_LOST: "lost",
}


def committed(outcomes: Sequence[Outcome], *, now: datetime) -> None:
    for outcome in outcomes:
        _count(outcome.report, now)


def _count(report: report_pb2.SegmentReport, now: datetime) -> None:
    stream, pipeline = report.stream_id, report.pipeline
    if report.outcome == report_pb2.OUTCOME_LOST:
        metrics.LOST.labels(stream).inc(report.missing_before)
        metrics.LOST_SECONDS.labels(stream).inc(report.duration_seconds)
        return
    metrics.SEGMENTS.labels(stream, pipeline, _WORDS[report.outcome]).inc()
    if report.missing_before:
        metrics.MISSING.labels("sequence").inc(report.missing_before)
    if report.outcome == report_pb2.OUTCOME_DEAD_LETTERED:
        metrics.DEAD_LETTERS.labels(report.reason).inc()
    metrics.CORE_SECONDS.labels(pipeline, "decoder").inc(report.decoder_core_seconds)
    metrics.CORE_SECONDS.labels(pipeline, "inference").inc(report.inference_core_seconds)
    if report.outcome == report_pb2.OUTCOME_PROCESSED:
        metrics.ROWS.labels(stream, pipeline).inc(report.rows)
        metrics.QUALITY.labels(stream, pipeline).set(report.quality)
        _count_decision(report)
        step = report.finished_time.ToDatetime(UTC) - report.started_time.ToDatetime(UTC)
        metrics.STEP_SECONDS.labels(pipeline).observe(step.total_seconds())
        age = now - report.event_time.ToDatetime(UTC)
        metrics.LAG_SECONDS.labels(stream, pipeline).set(max(0.0, age.total_seconds() - report.duration_seconds))


def _count_decision(report: report_pb2.SegmentReport) -> None:
    if not report.HasField("decision"):
        return
    decision = report.decision
    dearest = decision.predicted_quality[-1]
    if dearest > 0:
        missed = abs(report.quality - decision.predicted_quality[decision.configuration])
        metrics.PREDICTION_ERROR.labels(report.pipeline).observe(missed / dearest)
    if decision.burst_failure:
        metrics.BURST_FAILURES.labels(decision.burst_failure).inc()
    if decision.placement == report_pb2.PLACE_BURST:
        metrics.BURST_SEGMENTS.labels(report.pipeline).inc()
        metrics.BURST_USD.labels(report.pipeline).inc(report.burst_nano_usd * 1e-9)
        metrics.CORE_SECONDS.labels(report.pipeline, "burst").inc(report.burst_core_seconds)
        # What it left to the pool tells nothing of what the whole would have taken there.
        return
    estimated = decision.estimated_core_seconds[decision.configuration]
    if estimated > 0:
        measured = report.decoder_core_seconds + report.inference_core_seconds
        metrics.WORK_ERROR.labels(report.pipeline).observe(measured / estimated)
