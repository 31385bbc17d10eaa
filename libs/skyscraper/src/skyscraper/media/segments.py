"""The segments of a file or street camera, cut as the publisher cuts them, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skyscraper.bus.topics import MAX_SEGMENT_BYTES
from skyscraper.errors import BadSegment
from skyscraper.media.features import packet_features
from skyscraper.media.look import look
from skyscraper.media.mux import CARRIAGES, FILE_OVERHEAD_BYTES, Muxer, VideoPacket, repaired
from skyscraper.media.segmenter import PacketInfo, Segmenter, Step
from skyscraper.media.sources import Source, SourceKind, VideoInput, locations
from skyscraper.media.ticks import to_seconds
from skyscraper.media.timestamps import TimestampRepair

_OPEN_SECONDS = 10.0
_READ_SECONDS = 30.0
_MAX_OPEN_SECONDS = 10.0


@dataclass(frozen=True)
class VideoSegment:
    """One segment: its bytes, where it begins in its source, how long it is, and what its packets and a look at
    its first frames tell."""

    value: bytes
    start_seconds: float
    duration_seconds: float
    frames: int
    features: dict[str, float]


def read_segments(source: Source, segment_seconds: float) -> Iterator[VideoSegment]:
    """Every segment of a file, of a folder's files, or of one turn of a street camera. Raises SourceError."""
    for location in locations(source, sleep=lambda _: True):
        with VideoInput(source, location, open_seconds=_OPEN_SECONDS, read_seconds=_READ_SECONDS) as video:
            yield from _cut(video, segment_seconds)
        if source.kind is not SourceKind.DIRECTORY:
            return


def _cut(video: VideoInput, segment_seconds: float) -> Iterator[VideoSegment]:
    muxer = Muxer(video.stream, CARRIAGES[video.codec])
    repair = TimestampRepair()
    repair.restart()
    segmenter = Segmenter[VideoPacket](
        target_seconds=segment_seconds,
        max_open_seconds=_MAX_OPEN_SECONDS,
        max_bytes=MAX_SEGMENT_BYTES - FILE_OVERHEAD_BYTES,
    )
    for packet in video.packets():
        for part in muxer.filtered(packet):
            times = repaired(repair, part)
            info = PacketInfo(times.pts, times.dts, times.duration, part.size, part.is_keyframe)
            yield from _finished(segmenter.push(info, part), muxer)
    yield from _finished(segmenter.flush(), muxer)


def _finished(step: Step[VideoPacket], muxer: Muxer) -> Iterator[VideoSegment]:
    for cut in step.cuts:
        duration = cut.end_pts - cut.start_pts
        value = muxer.mux(cut.infos, cut.payloads)
        yield VideoSegment(
            value,
            to_seconds(cut.start_pts),
            to_seconds(duration),
            len(cut.infos),
            packet_features(cut.infos, duration) | _looked(value),
        )


def _looked(value: bytes) -> dict[str, float]:
    """As the publisher does it: a segment at which no look can be had goes without."""
    try:
        return look(value)
    except BadSegment:
        return {}
