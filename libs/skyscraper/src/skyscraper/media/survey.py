"""What a segment's bytes tell of it where its publisher did not: length and packet features, without decoding."""

from __future__ import annotations

from dataclasses import dataclass

from av.error import FFmpegError

from skyscraper.errors import BadSegment
from skyscraper.media.features import packet_features
from skyscraper.media.opening import open_segment
from skyscraper.media.segmenter import PacketInfo
from skyscraper.media.ticks import covered, to_seconds, to_ticks


@dataclass(frozen=True)
class Survey:
    duration_seconds: float
    """From the first frame to the end of the last, which lasts as long as the frames do on average."""
    features: dict[str, float]
    """As `packet_features`."""


def survey(value: bytes) -> Survey:
    """Raises BadSegment with reason `empty`, `corrupt` or `no_video`."""
    if not value:
        raise BadSegment("empty", "the segment has no bytes")
    try:
        with open_segment(value) as container:
            if not container.streams.video:
                raise BadSegment("no_video", f"the segment ({container.format.name}) has no video stream")
            stream = container.streams.video[0]
            base = stream.time_base
            infos = [
                PacketInfo(to_ticks(packet.pts, base), 0, 0, packet.size, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and packet.pts is not None and base is not None
            ]
    except (FFmpegError, ValueError) as error:
        # PyAV raises ValueError where damage makes sizes or formats that it does not know.
        raise BadSegment("corrupt", f"no survey of a segment of {len(value)} bytes: {error}") from error
    if not infos:
        raise BadSegment("corrupt", "the segment has no readable video packet")
    duration = round(covered([info.pts for info in infos]))
    return Survey(to_seconds(duration), packet_features(infos, duration))
