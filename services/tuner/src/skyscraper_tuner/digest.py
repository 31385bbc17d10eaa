"""What one report adds to what is known of its stream: pure functions over the tuner's records.

Every record knows the offset of the newest report in it, so a report that is read again after a crash changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.control.budget import NANO_PER_USD
from skyscraper.control.drift import Drift, watched
from skyscraper.control.work import recalibrated
from skyscraper.profile.fit import Fit
from skyscraper.profile.predict import AHEAD_SEGMENTS, MEMORY_SEGMENTS, segment_features
from skyscraper.v1 import digest_pb2, report_pb2

Floats = NDArray[np.float64]

# How much the newest segment counts in a stream's mean rate of bytes: about the last fifty, as with its work.
_NEWEST_SHARE = 0.02
_SECONDS_PER_DAY = 86_400.0


def slot_of(event_seconds: float, slot_seconds: float) -> int:
    """Slots since 1970; a day of the content begins with one of its slots."""
    return int(event_seconds // slot_seconds)


def slot_key(stream_id: str, slot: int) -> bytes:
    return f"{stream_id}/{slot}".encode()


def split_key(key: bytes) -> tuple[str, int | None]:
    """Stream, and slot of a SlotDigest's key; no slot for a StreamDigest's. A stream id holds no slash."""
    stream_id, mark, slot = key.decode(errors="replace").partition("/")
    return stream_id, int(slot) if mark and slot.isdecimal() else None


def core_seconds(report: report_pb2.SegmentReport) -> float:
    return report.decoder_core_seconds + report.inference_core_seconds


def was_away(report: report_pb2.SegmentReport) -> bool:
    """On burst machines: what it took of the pool says nothing of what its configuration takes there."""
    return report.decision.placement == report_pb2.PLACE_BURST


def fit_decided(report: report_pb2.SegmentReport, fit: Fit | None) -> Fit | None:
    """The fit by which the report's segment was decided, if it is the one given and all parts are there."""
    decision = report.decision
    known = (
        fit is not None
        and decision.profile_version == fit.version
        and len(decision.predicted_quality) == len(fit.configurations)
        and 0 <= decision.configuration < len(fit.configurations)
    )
    return fit if known else None


def expected_deviation(fit: Fit, configuration: int) -> float:
    """How far reported qualities were from predicted ones in training."""
    variance = fit.residuals.covariance[configuration, configuration] + fit.residuals.noise[configuration]
    return float(np.sqrt(max(variance, 0.0)))


def add_to_stream(
    digest: digest_pb2.StreamDigest | None, report: report_pb2.SegmentReport, offset: int, fit: Fit | None
) -> digest_pb2.StreamDigest:
    """After one more report; the digest itself where it is in there already. Only processed segments count."""
    found = digest_pb2.StreamDigest(drift_error=1.0, work_scale=1.0, last_offset=-1)
    if digest is not None:
        found.CopyFrom(digest)
    if offset <= found.last_offset:
        return found
    found.last_offset = offset
    if report.outcome != report_pb2.OUTCOME_PROCESSED:
        return found
    found.stream_id, found.pipeline = report.stream_id, report.pipeline
    found.newest_seconds = max(found.newest_seconds, event_seconds(report))
    rate = report.segment_bytes / report.duration_seconds if report.duration_seconds > 0 else 0.0
    found.bytes_per_second += (_NEWEST_SHARE if found.segments else 1.0) * (rate - found.bytes_per_second)
    found.segments += 1
    if was_away(report):
        found.burst_core_seconds += report.burst_core_seconds - _NEWEST_SHARE * found.burst_core_seconds
        found.burst_usd += report.burst_nano_usd / NANO_PER_USD - _NEWEST_SHARE * found.burst_usd
    decided = fit_decided(report, fit)
    if decided is None:
        return found
    if found.profile_version != decided.version:
        # Errors of another predictor say nothing of this one.
        found.profile_version, found.drift_error, found.drifted = decided.version, 1.0, False
    k = report.decision.configuration
    estimate = float(decided.work.estimate(report.duration_seconds)[k])
    if core_seconds(report) > 0 and not was_away(report):
        found.work_scale = recalibrated(found.work_scale, estimate, core_seconds(report))
    drift = watched(
        Drift(found.drift_error, found.drifted),
        error=report.quality - report.decision.predicted_quality[k],
        expected_deviation=expected_deviation(decided, k),
        segment_seconds=report.duration_seconds,
    )
    found.drift_error, found.drifted = drift.error, drift.drifted
    return found


def paid_usd_per_core_second(digests: Iterable[digest_pb2.StreamDigest]) -> float | None:
    """What burst machines cost lately, over all streams; None where nothing was paid."""
    known = [one for one in digests if one.burst_core_seconds > 0]
    work, usd = sum(one.burst_core_seconds for one in known), sum(one.burst_usd for one in known)
    return usd / work if work > 0 and usd > 0 else None


def add_to_slot(
    digest: digest_pb2.SlotDigest | None,
    report: report_pb2.SegmentReport,
    offset: int,
    fit: Fit | None,
    *,
    slot_seconds: float,
) -> digest_pb2.SlotDigest:
    """After one more report; the digest itself where it is in there already."""
    found = _slot(digest, report.stream_id, event_seconds(report), slot_seconds)
    if offset <= found.last_offset:
        return found
    found.last_offset = offset
    if report.outcome != report_pb2.OUTCOME_PROCESSED:
        found.failed_segments += 1
        return found
    found.segments += 1
    found.video_seconds += report.duration_seconds
    found.quality += report.quality
    found.core_seconds += core_seconds(report)
    decided = fit_decided(report, fit)
    if decided is None:
        return found
    k = report.decision.configuration
    if not was_away(report):
        found.estimated_core_seconds += float(decided.work.estimate(report.duration_seconds)[k])
    deviation = expected_deviation(decided, k)
    if deviation > 0:
        found.predicted_segments += 1
        found.squared_error += ((report.quality - report.decision.predicted_quality[k]) / deviation) ** 2
    count = decided.categories.count
    if found.profile_version != decided.version or len(found.categories) != count:
        found.profile_version = decided.version
        # A re-fit leaves the categories as they are; of another number they are others.
        if len(found.categories) != count:
            found.categories[:] = [0] * count
    if 0 <= report.decision.category < count:
        found.categories[report.decision.category] += 1
    return found


def add_sample(
    digest: digest_pb2.SlotDigest | None,
    sample: digest_pb2.Sample,
    *,
    stream_id: str,
    slot_seconds: float,
    most: int,
) -> digest_pb2.SlotDigest:
    """With the sample among the slot's, if chance will have it; at most `most` are kept."""
    found = _slot(digest, stream_id, sample.seconds, slot_seconds)
    kept = {one.draw: one for one in [*found.samples, sample]}
    chosen = [digest_pb2.Sample.FromString(kept[draw].SerializeToString()) for draw in sorted(kept)[:most]]
    del found.samples[:]
    found.samples.extend(chosen)
    return found


def event_seconds(report: report_pb2.SegmentReport) -> float:
    """Wall clock of the first frame, in seconds since 1970."""
    return report.event_time.seconds + report.event_time.nanos * 1e-9


def _slot(
    digest: digest_pb2.SlotDigest | None, stream_id: str, seconds: float, slot_seconds: float
) -> digest_pb2.SlotDigest:
    found = digest_pb2.SlotDigest(
        stream_id=stream_id, slot=slot_of(seconds, slot_seconds), slot_seconds=slot_seconds, last_offset=-1
    )
    if digest is not None:
        found.CopyFrom(digest)
    return found


@dataclass(frozen=True)
class _Seen:
    features: tuple[float, ...]
    seconds: float
    version: str
    configuration: int
    quality: float
    draw: int


class Neighbourhood:
    """The last segments of one stream, of which the one in the middle now has all its inputs.

    Kept in memory only: after a restart the trailing means of the first minute's samples are shorter, as those of a
    stream that begins.
    """

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque(maxlen=MEMORY_SEGMENTS + AHEAD_SEGMENTS)

    def sample(
        self, report: report_pb2.SegmentReport, fit: Fit | None, *, day_seconds: float
    ) -> digest_pb2.Sample | None:
        """The sample that became complete with this report: of the segment AHEAD_SEGMENTS before it."""
        if report.outcome != report_pb2.OUTCOME_PROCESSED or fit is None:
            return None
        if len(report.features) != len(fit.feature_names):
            return None
        decided = fit_decided(report, fit)
        if self._seen and len(self._seen[-1].features) != len(report.features):
            self._seen.clear()
        self._seen.append(
            _Seen(
                tuple(report.features),
                event_seconds(report),
                "" if decided is None else decided.version,
                report.decision.configuration,
                report.quality,
                int.from_bytes(hashlib.blake2b(report.segment_id.encode(), digest_size=8).digest(), "little"),
            )
        )
        row = len(self._seen) - 1 - AHEAD_SEGMENTS
        if row < 0 or not self._seen[row].version:
            return None
        one = self._seen[row]
        # The predictor's hour is the time of the content's day, as on a day of 24 hours.
        hour_seconds = one.seconds % day_seconds / day_seconds * _SECONDS_PER_DAY
        first = round(hour_seconds / fit.segment_seconds) - row
        inputs = segment_features(
            np.array([each.features for each in self._seen]), fit.segment_seconds, first, ahead=True
        )[row]
        return digest_pb2.Sample(
            draw=one.draw,
            seconds=one.seconds,
            profile_version=one.version,
            configuration=one.configuration,
            quality=one.quality,
            inputs=inputs,
        )
