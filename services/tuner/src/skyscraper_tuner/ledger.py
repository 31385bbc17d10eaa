"""What this process's part of the table becomes with every report. Knows no Kafka: a table is a mapping of bytes."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError, Message
from skyscraper.bus.topics import is_stream_id
from skyscraper.profile.fit import Fit
from skyscraper.v1 import digest_pb2, report_pb2

from skyscraper_tuner import metrics
from skyscraper_tuner.digest import (
    Neighbourhood,
    add_sample,
    add_to_slot,
    add_to_stream,
    event_seconds,
    slot_key,
    slot_of,
    split_key,
)
from skyscraper_tuner.fits import Fits

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

_OUTCOME = re.compile(r"^OUTCOME_")


class Ledger:
    """One thread."""

    def __init__(
        self,
        table: MutableMapping[bytes, bytes],
        fits: Fits,
        *,
        slot_seconds: float,
        day_seconds: float,
        history_days: int,
        samples_per_slot: int,
    ) -> None:
        self._table = table
        self._fits = fits
        self._slot_seconds = slot_seconds
        self._day_seconds = day_seconds
        self._kept_slots = round(history_days * day_seconds / slot_seconds)
        self._samples_per_slot = samples_per_slot
        self._neighbours: dict[str, Neighbourhood] = {}
        # By stream, the newest slot seen by this process.
        self._newest: dict[str, int] = {}

    def take(self, value: bytes | None, offset: int) -> None:
        """One record of sky.reports. What is no report is counted and left out."""
        try:
            report = report_pb2.SegmentReport.FromString(value or b"")
        except DecodeError:
            return self._leave_out("damaged", offset)
        if not is_stream_id(report.stream_id):
            return self._leave_out("no_stream", offset)
        if event_seconds(report) <= 0:
            return self._leave_out("no_time", offset)
        metrics.REPORTS.labels(_OUTCOME.sub("", _outcome(report)).lower()).inc()
        fit = self._fits.version(report.pipeline, report.decision.profile_version)
        self._digest(report, offset, fit)
        sample = self._neighbours.setdefault(report.stream_id, Neighbourhood()).sample(
            report, fit, day_seconds=self._day_seconds
        )
        if sample is not None:
            self._keep(report.stream_id, sample)
        self._expire(report.stream_id, slot_of(event_seconds(report), self._slot_seconds))
        return None

    def _digest(self, report: report_pb2.SegmentReport, offset: int, fit: Fit | None) -> None:
        key = report.stream_id.encode()
        stream = add_to_stream(self._read(key, digest_pb2.StreamDigest), report, offset, fit)
        self._table[key] = stream.SerializeToString(deterministic=True)
        key = slot_key(report.stream_id, slot_of(event_seconds(report), self._slot_seconds))
        before = self._read(key, digest_pb2.SlotDigest)
        if before is not None and before.slot_seconds != self._slot_seconds:
            # Of the same number, but another time.
            before = None
        slot = add_to_slot(before, report, offset, fit, slot_seconds=self._slot_seconds)
        self._table[key] = slot.SerializeToString(deterministic=True)

    def _keep(self, stream_id: str, sample: digest_pb2.Sample) -> None:
        key = slot_key(stream_id, slot_of(sample.seconds, self._slot_seconds))
        before = self._read(key, digest_pb2.SlotDigest)
        slot = add_sample(
            before, sample, stream_id=stream_id, slot_seconds=self._slot_seconds, most=self._samples_per_slot
        )
        if slot != before:
            self._table[key] = slot.SerializeToString(deterministic=True)

    def _expire(self, stream_id: str, slot: int) -> None:
        """With every new slot of a stream the one that is too old by now goes; the first time, all that are."""
        newest = self._newest.get(stream_id)
        if newest is not None and slot <= newest:
            return
        self._newest[stream_id] = slot
        oldest = slot - self._kept_slots
        if newest is None or slot - newest > 1:
            mine = [(key, *split_key(key)) for key in list(self._table)]
            gone = [key for key, name, number in mine if name == stream_id and number is not None and number < oldest]
        else:
            gone = [slot_key(stream_id, oldest - 1)]
        for key in gone:
            if key in self._table:
                del self._table[key]

    def _read(self, key: bytes, kind: type[M]) -> M | None:
        value = self._table.get(key)
        if value is None:
            return None
        try:
            return kind.FromString(value)
        except DecodeError:
            log.warning("digest_cannot_be_read", key=key.decode(errors="replace"))
            return None

    def _leave_out(self, reason: str, offset: int) -> None:
        metrics.REPORTS_LEFT_OUT.labels(reason).inc()
        log.warning("report_left_out", reason=reason, offset=offset)


def _outcome(report: report_pb2.SegmentReport) -> str:
    try:
        return report_pb2.Outcome.Name(report.outcome)
    except ValueError:
        # A newer decoder's.
        return "OUTCOME_UNKNOWN"
