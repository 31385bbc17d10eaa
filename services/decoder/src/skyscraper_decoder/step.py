"""One segment's way: identify, switch, decode, detect, track. The commit follows in commit.py.

`SegmentStep.run` is a function of the message, the stream's state and its settings; it never touches Kafka. What can
never succeed becomes a dead letter; what may succeed later is raised to the lane, which waits and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from skyscraper.bus import topics
from skyscraper.bus.headers import Headers, SegmentHeaders, decode_headers, segment_id
from skyscraper.bus.ledger import DEFAULT_TENANT
from skyscraper.errors import BadSegment, SkyscraperError
from skyscraper.media.decode import decode_segment
from skyscraper.pipeline import Configuration, ModelClient, Pipeline, SegmentContext, SegmentResult, reads_state
from skyscraper.rpc.burst_client import BurstFailed
from skyscraper.v1 import report_pb2, state_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.ahead import Seen
from skyscraper_decoder.away import Away
from skyscraper_decoder.outcome import Outcome, Record
from skyscraper_decoder.switching import AwaySpent, Decided
from skyscraper_decoder.turnstile import Turn

log = structlog.get_logger()

# Where neither the publisher nor the bytes tell how long a segment is.
_DEFAULT_DURATION_SECONDS = 2.0
# Key, headers and Python objects of a queued segment, roughly.
_ENVELOPE_BYTES = 1024
# A dead letter's headers must stay far below Kafka's message limit, whatever an exception's text is.
_DETAIL_CHARACTERS = 500


@dataclass(frozen=True)
class Segment:
    """A message of sky.segments."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers
    published_time: datetime
    arrived_seconds: float
    """The same on the monotonic clock."""

    @property
    def size_bytes(self) -> int:
        """What it occupies in a queue; an empty one is not free."""
        return len(self.value) + _ENVELOPE_BYTES


@dataclass(frozen=True)
class Gap:
    """Retention deleted the `lost` offsets before `next_offset` unprocessed."""

    partition: int
    next_offset: int
    lost: int
    size_bytes: int = 0


@dataclass(frozen=True)
class StreamSettings:
    """How one stream is processed: its pipeline and, where no plan says otherwise, its fixed configuration."""

    pipeline: Pipeline
    configuration: Configuration
    partition: int | None
    """The partition registered for it; None where the stream is not registered."""
    tenant: str = DEFAULT_TENANT
    """Whose dollars its bursts cost."""


class StreamDirectory(Protocol):
    def settings(self, stream_id: str) -> StreamSettings:
        """Raises BadSegment("unregistered_stream"), BadSegment("stream_settings"), and what is waited out."""
        ...


class WorkMeter(ModelClient, Protocol):
    """A model client that adds up what the servers say a request cost."""

    def take_work_core_seconds(self) -> float:
        """CPU seconds of inference since the last call."""
        ...


class Switch(Protocol):
    """Chooses configurations (see `switching`)."""

    def choose(
        self, line: Seen, partition: int, pipeline: Pipeline, fixed: Configuration, turn: Turn, tenant: str
    ) -> Decided: ...

    def choose_again(self, decided: Decided, *, lost_seconds: float, reason: str) -> Decided: ...

    def learn(self, decided: Decided, *, quality: float, core_seconds: float, away: AwaySpent | None) -> None: ...


class Sender(Protocol):
    """Does segments on burst machines (see `bursting`)."""

    def send(
        self,
        segment: bytes,
        pipeline: Pipeline,
        configuration: Configuration,
        *,
        expected_frames: int | None,
        tenant: str,
        core_seconds: float,
        expected_seconds: float,
        most_seconds: float,
        advantage: float,
    ) -> Away: ...


class SegmentStep:
    """Processes the segments of one partition, in order."""

    def __init__(
        self,
        directory: StreamDirectory,
        models: WorkMeter,
        switch: Switch,
        sender: Sender | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._directory = directory
        self._models = models
        self._switch = switch
        self._sender = sender
        self._now = now

    def run(self, segment: Segment, states: Mapping[str, state_pb2.OperatorState], turn: Turn) -> Outcome:
        """`states` holds the newest state of each stream of the partition. Raises only retriable SkyscraperErrors."""
        started_time = self._now()
        started_cpu = time.thread_time()
        self._models.take_work_core_seconds()
        headers, malformed = decode_headers(segment.headers)
        for name in malformed:
            metrics.MALFORMED_HEADERS.labels(name if name.startswith(("ce_", "sky_")) else "other").inc()
        report = _open_report(segment, headers, started_time)
        state: state_pb2.OperatorState | None = None
        records: tuple[Record, ...] = ()
        decided: Decided | None = None
        away: AwaySpent | None = None
        try:
            stream_id = _stream_id(segment)
            report.stream_id = stream_id
            report.segment_id = _identity(stream_id, segment, headers)
            state = _next_state(stream_id, segment, headers, states.get(stream_id), report)
            if report.outcome != report_pb2.OUTCOME_DUPLICATE:
                records, decided, away = self._process(segment, headers, state, report, turn)
                report.outcome = report_pb2.OUTCOME_PROCESSED
        except BadSegment as error:
            report.outcome, report.reason = report_pb2.OUTCOME_DEAD_LETTERED, error.reason
            records = (_dead_letter(segment, error.reason, str(error)),)
            log.warning(
                "dead_letter", stream=report.stream_id, offset=segment.offset, reason=error.reason, error=str(error)
            )
        finally:
            report.decoder_core_seconds = time.thread_time() - started_cpu
            report.inference_core_seconds = self._models.take_work_core_seconds()
            turn.measured_core_seconds = report.decoder_core_seconds + report.inference_core_seconds
        if decided is not None and decided.report is not None:
            self._switch.learn(decided, quality=report.quality, core_seconds=turn.measured_core_seconds, away=away)
            report.decision.CopyFrom(decided.report)
            report.features.extend(decided.features)
        report.finished_time.CopyFrom(_timestamp(self._now()))
        return Outcome(segment.partition, segment.offset + 1, report, records, state)

    def account_loss(self, gap: Gap, states: Mapping[str, state_pb2.OperatorState]) -> Outcome:
        """The report of what retention took. A partition with one known stream names it; seconds are estimated by
        the length of that stream's last segment, since nobody has seen the lost ones."""
        report = report_pb2.SegmentReport(
            partition=gap.partition,
            offset=gap.next_offset - gap.lost,
            outcome=report_pb2.OUTCOME_LOST,
            reason="retention",
            missing_before=gap.lost,
            duration_seconds=gap.lost * _DEFAULT_DURATION_SECONDS,
            finished_time=_timestamp(self._now()),
        )
        if len(states) == 1:
            (state,) = states.values()
            report.stream_id, report.pipeline = state.stream_id, state.pipeline
            report.duration_seconds = gap.lost * (state.last_duration_seconds or _DEFAULT_DURATION_SECONDS)
        log.error("retention_loss", partition=gap.partition, stream=report.stream_id, segments=gap.lost)
        return Outcome(gap.partition, gap.next_offset, report)

    def _process(
        self,
        segment: Segment,
        headers: SegmentHeaders,
        state: state_pb2.OperatorState,
        report: report_pb2.SegmentReport,
        turn: Turn,
    ) -> tuple[tuple[Record, ...], Decided, AwaySpent | None]:
        """Rows of a segment that is neither repeated nor misplaced; fills in `state` and `report`."""
        settings = self._directory.settings(report.stream_id)
        if settings.partition is not None and settings.partition != segment.partition:
            raise BadSegment(
                "wrong_partition",
                f"stream {report.stream_id} belongs to partition {settings.partition}, this segment came on "
                f"{segment.partition}: publish with the registered partition",
            )
        pipeline = settings.pipeline
        if state.operator_state and not reads_state(pipeline, state.pipeline, state.pipeline_version):
            metrics.STATE_RESETS.labels("pipeline_changed").inc()
            state.operator_state = b""
        state.pipeline, state.pipeline_version = pipeline.name, pipeline.version
        line = _line(segment, headers, report)
        decided = self._switch.choose(line, segment.partition, pipeline, settings.configuration, turn, settings.tenant)
        turn.begin(decided.estimated_core_seconds, away=decided.sending is not None)
        decided, away, spent = self._send_away(segment, headers, pipeline, decided, report, turn)
        configuration = decided.configuration
        report.pipeline = pipeline.name
        report.configuration.update({name: str(value) for name, value in configuration.items()})
        context = SegmentContext(
            stream_id=report.stream_id,
            segment_id=report.segment_id,
            time=report.event_time.ToDatetime(UTC),
            duration_seconds=report.duration_seconds,
        )
        result = self._analyse(segment, headers, state.operator_state, context, pipeline, configuration, report, away)
        state.operator_state = result.state
        state.last_duration_seconds = report.duration_seconds
        report.quality = result.quality
        report.rows = len(result.rows)
        topic = topics.rows_topic(pipeline.name)
        key = report.stream_id.encode()
        rows = tuple(
            Record(
                topic,
                key,
                pipeline.row_schema.encode(row, stream_id=report.stream_id, segment=report.segment_id, index=index),
                partition=segment.partition,
            )
            for index, row in enumerate(result.rows)
        )
        return rows, decided, spent

    def _send_away(
        self,
        segment: Segment,
        headers: SegmentHeaders,
        pipeline: Pipeline,
        decided: Decided,
        report: report_pb2.SegmentReport,
        turn: Turn,
    ) -> tuple[Decided, Away | None, AwaySpent | None]:
        """Decode and detect on burst machines, where that was chosen; where it fails, the next choice, here and now."""
        sending = decided.sending
        if sending is None or self._sender is None:
            return decided, None, None
        started = time.monotonic()
        try:
            away = self._sender.send(
                segment.value,
                pipeline,
                decided.configuration,
                expected_frames=headers.frames,
                tenant=sending.tenant,
                core_seconds=sending.core_seconds,
                expected_seconds=sending.seconds,
                most_seconds=sending.most_seconds,
                advantage=sending.advantage,
            )
        except BurstFailed as error:
            log.info("burst_failed", stream=report.stream_id, reason=error.reason, error=str(error))
            decided = self._switch.choose_again(decided, lost_seconds=time.monotonic() - started, reason=error.reason)
            turn.come_back(decided.estimated_core_seconds)
            return decided, None, None
        seconds = time.monotonic() - started
        metrics.BURST_SECONDS.labels(pipeline.name).observe(seconds)
        report.burst_core_seconds, report.burst_nano_usd = away.core_seconds, away.nano_usd
        return decided, away, AwaySpent(away.core_seconds, seconds)

    def _analyse(
        self,
        segment: Segment,
        headers: SegmentHeaders,
        operator_state: bytes,
        context: SegmentContext,
        pipeline: Pipeline,
        configuration: Configuration,
        report: report_pb2.SegmentReport,
        away: Away | None,
    ) -> SegmentResult:
        """Decode, detect, track; the first two may be done already. A fault of the pipeline's own code costs this
        segment, not the stream."""
        if away is None:
            frames = decode_segment(segment.value, pipeline.sampling(configuration), expected_frames=headers.frames)
        else:
            frames = away.frames
        report.frames_decoded = frames.frames_decoded
        report.frames_analysed = len(frames.times_seconds)
        if headers.duration_seconds is None:
            report.duration_seconds = frames.duration_seconds
            context = replace(context, duration_seconds=frames.duration_seconds)
        try:
            detections = away.detections if away else pipeline.detect(frames, configuration, self._models)
            return pipeline.track(operator_state or None, context, frames, detections, configuration)
        except SkyscraperError as error:
            if error.retriable or isinstance(error, BadSegment):
                raise
            raise BadSegment("pipeline_failed", f"pipeline {pipeline.name}: {error}") from error
        except Exception as error:
            log.exception("pipeline_raised", pipeline=pipeline.name, segment=context.segment_id)
            raise BadSegment("pipeline_raised", f"pipeline {pipeline.name} raised {error!r}") from error


def _open_report(segment: Segment, headers: SegmentHeaders, started_time: datetime) -> report_pb2.SegmentReport:
    duration = _DEFAULT_DURATION_SECONDS if headers.duration_seconds is None else headers.duration_seconds
    # Without a publisher's clock, the segment's last frame is taken to be as old as its arrival in Kafka.
    event_time = headers.time or segment.published_time - timedelta(seconds=duration)
    return report_pb2.SegmentReport(
        partition=segment.partition,
        offset=segment.offset,
        event_time=_timestamp(event_time),
        duration_seconds=duration,
        segment_bytes=len(segment.value),
        published_time=_timestamp(segment.published_time),
        started_time=_timestamp(started_time),
    )


def _line(segment: Segment, headers: SegmentHeaders, report: report_pb2.SegmentReport) -> Seen:
    return Seen(
        offset=segment.offset,
        stream_id=report.stream_id,
        arrived_seconds=segment.arrived_seconds,
        event_seconds=report.event_time.ToDatetime(UTC).timestamp(),
        duration_seconds=headers.duration_seconds,
        size_bytes=segment.size_bytes,
        features=headers.features,
    )


def _stream_id(segment: Segment) -> str:
    try:
        stream_id = (segment.key or b"").decode("ascii")
    except UnicodeDecodeError as error:
        raise BadSegment("stream_id", f"the key {segment.key!r:.80} is not a stream id") from error
    if not topics.is_stream_id(stream_id):
        raise BadSegment(
            "stream_id", f"the key {stream_id!r:.80} is not a stream id; it must match {topics.STREAM_ID.pattern}"
        )
    named = next((value for name, value in segment.headers if name == "ce_id"), None)
    if named is not None and b"/" in named and named.split(b"/", 1)[0] != segment.key:
        raise BadSegment("stream_id", f"the key says stream {stream_id}, ce_id says {named!r:.80}")
    return stream_id


def _identity(stream_id: str, segment: Segment, headers: SegmentHeaders) -> str:
    """The publisher's name for the segment, else its place in Kafka."""
    if headers.epoch is not None and headers.sequence is not None:
        return segment_id(stream_id, headers.epoch, headers.sequence)
    return f"{stream_id}/offset/{segment.partition}-{segment.offset}"


def _next_state(
    stream_id: str,
    segment: Segment,
    headers: SegmentHeaders,
    before: state_pb2.OperatorState | None,
    report: report_pb2.SegmentReport,
) -> state_pb2.OperatorState:
    """The state to write after this segment, operators still as before; tells repeats and gaps by the numbering."""
    after = state_pb2.OperatorState(stream_id=stream_id, epoch=-1, sequence=-1)
    if before is not None:
        after.CopyFrom(before)
    after.next_offset = segment.offset + 1
    if headers.epoch is None or headers.sequence is None:
        return after
    if headers.epoch < after.epoch:
        raise BadSegment(
            "stale_epoch",
            f"stream {stream_id} is at epoch {after.epoch}, this segment at {headers.epoch}: two publishers at once?",
        )
    if headers.epoch == after.epoch:
        if headers.sequence <= after.sequence:
            report.outcome, report.reason = report_pb2.OUTCOME_DUPLICATE, "repeated_sequence"
            return after
        report.missing_before = headers.sequence - after.sequence - 1
    after.epoch, after.sequence = headers.epoch, headers.sequence
    return after


def _dead_letter(segment: Segment, reason: str, detail: str) -> Record:
    told = {
        "sky_reason": reason,
        "sky_detail": detail[:_DETAIL_CHARACTERS],
        "sky_topic": topics.SEGMENTS,
        "sky_partition": str(segment.partition),
        "sky_offset": str(segment.offset),
    }
    kept = [(name, value) for name, value in segment.headers if name not in told]
    return Record(
        topics.DEAD_LETTERS,
        segment.key or b"",
        segment.value,
        partition=segment.partition,
        headers=kept + [(name, text.encode()) for name, text in told.items()],
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
