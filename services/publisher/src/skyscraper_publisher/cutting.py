"""From one source's packets to finished segments: repair times, cut, mux, look, describe. No threads, no waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import av
import structlog
from skyscraper.bus.headers import SegmentHeaders, encode_headers
from skyscraper.bus.topics import MAX_SEGMENT_BYTES
from skyscraper.media.features import packet_features
from skyscraper.media.looking import Looking
from skyscraper.media.mux import CARRIAGES, FILE_OVERHEAD_BYTES, Muxer, VideoPacket, carried_size, repaired
from skyscraper.media.segmenter import Cut, PacketInfo, Segmenter, Step
from skyscraper.media.sources import SourceError, VideoInput
from skyscraper.media.ticks import TICKS_PER_SECOND, to_seconds
from skyscraper.media.timestamps import TimestampRepair

from skyscraper_publisher import metrics
from skyscraper_publisher.config import StreamConfig
from skyscraper_publisher.outbox import Message

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment; `end_seconds` on the clock of the epoch, for pacing."""

    message: Message
    end_seconds: float


@dataclass(slots=True)
class _Payload:
    packet: VideoPacket
    arrived: float
    size: int


class Cutting:
    """The segments of one epoch of one stream, numbered from 0, over any number of openings of its source."""

    def __init__(
        self,
        stream: StreamConfig,
        *,
        epoch: int,
        shown: str,
        live: bool,
        wall: Callable[[], float] = time.time,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._shown = shown
        self._live = live
        self._wall = wall
        self._stopped = stopped
        self.epoch = epoch
        start = stream.start_time.timestamp() if stream.start_time is not None else None
        self._start_unix_seconds = start
        self.sequence = 0
        self._repair = TimestampRepair()
        self._segmenter = Segmenter[_Payload](
            target_seconds=stream.segment_seconds,
            max_open_seconds=stream.max_open_seconds,
            max_bytes=MAX_SEGMENT_BYTES - FILE_OVERHEAD_BYTES,
        )
        self._last_arrival: float | None = None
        self._looking = Looking(stream.id, self._without_look) if stream.look else None
        self._muxer: Muxer | None = None
        self._codec = ""

    def segments(self, video: VideoInput) -> Iterator[Segment]:
        """The segments of one opening, until it ends or the service stops. Call `flush` after it, whatever ended it."""
        try:
            muxer = Muxer(video.stream, CARRIAGES[video.codec])
        except (av.FFmpegError, ValueError) as error:
            raise SourceError("bad_data", f"{self._shown}: its {video.codec} parameters cannot be used") from error
        self._muxer, self._codec = muxer, video.codec
        gap = 0.0 if self._last_arrival is None or not self._live else self._wall() - self._last_arrival
        self._repair.restart(round(max(0.0, gap) * TICKS_PER_SECOND))
        for packet in video.packets():
            if self._stopped():
                return
            arrived = self._wall()
            self._last_arrival = arrived
            if packet.is_corrupt:
                metrics.FRAMES_DROPPED.labels(self._stream.id, "corrupt").inc()
                continue
            for filtered in self._filtered(muxer, packet):
                info = self._info(muxer, filtered)
                step = self._segmenter.push(info, _Payload(filtered, arrived, filtered.size))
                yield from self._finished(step, muxer, video.codec)

    def flush(self) -> Iterator[Segment]:
        """The segment that the last opening left unfinished; to be called before another one."""
        if self._muxer is not None:
            yield from self._finished(self._segmenter.flush(), self._muxer, self._codec)
            self._muxer = None

    def _filtered(self, muxer: Muxer, packet: VideoPacket) -> list[VideoPacket]:
        try:
            return muxer.filtered(packet)
        except (av.FFmpegError, ValueError):
            metrics.FRAMES_DROPPED.labels(self._stream.id, "corrupt").inc()
            return []

    def _info(self, muxer: Muxer, packet: VideoPacket) -> PacketInfo:
        times = repaired(self._repair, packet)
        for reason in times.reasons:
            metrics.TIMESTAMPS_REPAIRED.labels(self._stream.id, reason).inc()
        size = carried_size(
            muxer.container, packet.size, keyframe=packet.is_keyframe, extradata_size=muxer.extradata_size
        )
        return PacketInfo(times.pts, times.dts, times.duration, size, packet.is_keyframe)

    def _finished(self, step: Step[_Payload], muxer: Muxer, codec: str) -> Iterator[Segment]:
        for dropped in step.dropped:
            metrics.FRAMES_DROPPED.labels(self._stream.id, dropped.reason).inc(dropped.frames)
        for cut in step.cuts:
            segment = self._segment(cut, muxer, codec)
            if segment is not None:
                yield segment

    def _segment(self, cut: Cut[_Payload], muxer: Muxer, codec: str) -> Segment | None:
        duration = cut.end_pts - cut.start_pts
        if duration > self._stream.max_open_seconds * TICKS_PER_SECOND:
            metrics.LONG_SEGMENTS.labels(self._stream.id).inc()
        sequence = self.sequence
        # A number is used up even if the segment is lost here: readers see the gap.
        self.sequence += 1
        try:
            value = muxer.mux(cut.infos, (payload.packet for payload in cut.payloads))
        except (av.FFmpegError, ValueError, OSError) as error:
            self._lost("mux_failed", sequence, type(error).__name__)
            return None
        if len(value) > MAX_SEGMENT_BYTES:
            self._lost("too_large", sequence, f"{len(value)} bytes")
            return None
        headers = SegmentHeaders(
            epoch=self.epoch,
            sequence=sequence,
            time=self._time(cut),
            pts_seconds=to_seconds(cut.start_pts),
            duration_seconds=to_seconds(duration),
            codec=codec,
            frames=len(cut.infos),
            source=self._shown,
            features=self._features(cut, value, duration),
        )
        message = Message(encode_headers(self._stream.id, headers), value)
        return Segment(message, to_seconds(cut.end_pts))

    def _without_look(self, reason: str) -> None:
        metrics.SEGMENTS_WITHOUT_LOOK.labels(self._stream.id, reason).inc()

    def _features(self, cut: Cut[_Payload], value: bytes, duration: int) -> dict[str, float]:
        looked = self._looking.features(value, to_seconds(duration)) if self._looking is not None else {}
        return packet_features(_sizes(cut), duration) | looked

    def _time(self, cut: Cut[_Payload]) -> datetime:
        """Live: when its first frame arrived. Else the first frame of the epoch's time plus video time."""
        if self._live:
            return datetime.fromtimestamp(cut.payloads[0].arrived, UTC)
        if self._start_unix_seconds is None:
            self._start_unix_seconds = cut.payloads[0].arrived
        return datetime.fromtimestamp(self._start_unix_seconds, UTC) + timedelta(seconds=to_seconds(cut.start_pts))

    def _lost(self, reason: str, sequence: int, error: str) -> None:
        metrics.SEGMENTS_DROPPED.labels(self._stream.id, reason).inc()
        log.error("segment_dropped", stream=self._stream.id, sequence=sequence, reason=reason, error=error)


def _sizes(cut: Cut[_Payload]) -> list[PacketInfo]:
    """The packets with their own sizes, without what a container adds."""
    pairs: Iterable[tuple[PacketInfo, _Payload]] = zip(cut.infos, cut.payloads, strict=True)
    return [PacketInfo(i.pts, i.dts, i.duration, payload.size, i.keyframe) for i, payload in pairs]
