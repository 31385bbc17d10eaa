"""A segment that is sent to burst machines: what comes back becomes rows; what does not is done here at once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import av
import numpy as np
import pytest
from skyscraper.errors import BadSegment
from skyscraper.pipeline import (
    Column,
    ColumnType,
    Configuration,
    Detections,
    Frames,
    Knob,
    Pipeline,
    Row,
    RowSchema,
    Sampling,
    SegmentContext,
    SegmentResult,
)
from skyscraper.rpc.burst_client import BurstFailed
from skyscraper.v1 import report_pb2
from skyscraper_decoder.ahead import Seen
from skyscraper_decoder.away import Away
from skyscraper_decoder.outcome import Outcome
from skyscraper_decoder.step import Segment, SegmentStep, StreamSettings
from skyscraper_decoder.switching import AwaySpent, Decided, Sending
from skyscraper_decoder.turnstile import Turn, Turnstile

FRAMES = 4
SENT = Sending("tenant-1", core_seconds=0.5, seconds=0.7, most_seconds=5.0, advantage=1.0)
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


def video() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=FRAMES, options={"preset": "ultrafast"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * number, np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


class Brightness:
    """One row per segment: how many frames were looked at, and where."""

    name, version = "brightness", "1"
    knobs = (Knob("level", ("pool", "burst"), "pool", "Which choice it was."),)
    row_schema = RowSchema(
        (
            Column("at", ColumnType.TIMESTAMP, "When."),
            Column("frames", ColumnType.INT64, "Frames."),
            Column("level", ColumnType.STRING, "The configuration."),
        ),
        "at",
    )

    def sampling(self, configuration: Configuration) -> Sampling:
        return Sampling(FRAMES, 32, 32)

    def detect(self, frames: Frames, configuration: Configuration, models: object) -> Sequence[Detections]:
        return [NOTHING] * len(frames.images)

    def track(
        self,
        state: bytes | None,
        context: SegmentContext,
        frames: Frames,
        detections: Sequence[Detections],
        configuration: Configuration,
    ) -> SegmentResult:
        row: Row = {"at": context.time, "frames": len(detections), "level": configuration["level"]}
        return SegmentResult([row], float(len(detections)), b"state")


class Switch:
    """Burst machines first; when asked again, the pool."""

    def __init__(self) -> None:
        self.learned: list[AwaySpent | None] = []
        self.reasons: list[str] = []

    def choose(
        self, line: Seen, partition: int, pipeline: Pipeline, fixed: Configuration, turn: Turn, tenant: str
    ) -> Decided:
        report = report_pb2.Decision(placement=report_pb2.PLACE_BURST)
        return Decided({"level": "burst"}, 0.01, report=report, sending=SENT)

    def choose_again(self, decided: Decided, *, lost_seconds: float, reason: str) -> Decided:
        self.reasons.append(reason)
        report = report_pb2.Decision(placement=report_pb2.PLACE_POOL, burst_failure=reason)
        return Decided({"level": "pool"}, 0.4, report=report)

    def learn(self, decided: Decided, *, quality: float, core_seconds: float, away: AwaySpent | None) -> None:
        self.learned.append(away)


class Machines:
    """Gives what it was given, or raises it."""

    def __init__(self, answer: Away | Exception) -> None:
        self._answer = answer
        self.asked: list[Mapping[str, Any]] = []

    def send(self, segment: bytes, pipeline: Pipeline, configuration: Configuration, **terms: Any) -> Away:
        self.asked.append(terms)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Models:
    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], parameters: Mapping[str, int | float] | None = None
    ) -> Mapping[str, np.ndarray]:
        raise AssertionError("no model is needed")

    def take_work_core_seconds(self) -> float:
        return 0.0


class Streams:
    def settings(self, stream_id: str) -> StreamSettings:
        return StreamSettings(cast("Pipeline", Brightness()), {"level": "pool"}, None, "tenant-1")


def run(machines: Machines, switch: Switch) -> tuple[Outcome, Turnstile]:
    turnstile = Turnstile(own_cores=None, concurrent=1)
    step = SegmentStep(Streams(), Models(), switch, machines)
    segment = Segment(0, 5, b"gate", video(), [], datetime(2026, 1, 1, tzinfo=UTC), 0.0)
    turn = turnstile.enter(0, arrived_seconds=0.0, refused=False, closed=lambda: False)
    assert turn is not None
    outcome = step.run(segment, {}, turn)
    turn.end()
    return outcome, turnstile


def test_what_burst_machines_found_becomes_rows_here() -> None:
    frames = Frames(np.empty((0, 0, 0, 3), np.uint8), np.arange(3) / 3, 64, 64, 3, 1.0)
    machines, switch = Machines(Away(frames, [NOTHING] * 3, core_seconds=0.4, nano_usd=4_000)), Switch()
    outcome, turnstile = run(machines, switch)
    report = outcome.report
    assert b'"frames":3,"level":"burst"' in outcome.records[0].value
    assert (report.burst_core_seconds, report.burst_nano_usd, report.frames_analysed) == (0.4, 4_000, 3)
    assert report.decision.placement == report_pb2.PLACE_BURST
    assert switch.learned[0] is not None
    assert switch.learned[0].core_seconds == 0.4
    assert machines.asked[0]["tenant"] == "tenant-1"
    assert turnstile._running == 0


@pytest.mark.parametrize("reason", ["budget", "unavailable", "deadline", "in_flight_bytes"])
def test_what_comes_back_undone_is_done_in_the_same_step(reason: str) -> None:
    switch = Switch()
    outcome, turnstile = run(Machines(BurstFailed(reason, "no")), switch)
    assert outcome.report.outcome == report_pb2.OUTCOME_PROCESSED
    assert b'"frames":4,"level":"pool"' in outcome.records[0].value
    assert (outcome.report.decision.burst_failure, switch.reasons) == (reason, [reason])
    assert outcome.report.decision.placement == report_pb2.PLACE_POOL
    assert (outcome.report.burst_nano_usd, switch.learned) == (0, [None])
    assert turnstile._running == 0


def test_a_segment_that_is_at_fault_is_a_dead_letter_wherever_that_is_found() -> None:
    outcome, turnstile = run(Machines(BadSegment("corrupt", "it cannot be read there")), Switch())
    assert outcome.report.outcome == report_pb2.OUTCOME_DEAD_LETTERED
    assert outcome.report.reason == "corrupt"
    assert turnstile._running == 0
