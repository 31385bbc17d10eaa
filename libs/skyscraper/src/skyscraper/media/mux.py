"""Segments as bytes: each one playable alone, whatever came before it. No frame is decoded or encoded."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import av
from av.bitstream import BitStreamFilterContext

from skyscraper.media.segmenter import PacketInfo
from skyscraper.media.ticks import TICK, TICKS_PER_SECOND, to_ticks
from skyscraper.media.timestamps import TimestampRepair, Timestamps

# A string, because the class takes its argument only for type checkers.
VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"

# Decode times may be before the epoch's first presentation; a transport stream has no negative time. Ten seconds is
# more than any encoder reorders.
LEAD_TICKS = 10 * TICKS_PER_SECOND
TS_PACKET_BYTES = 188
TS_PAYLOAD_BYTES = 184
# PES header with both timestamps (19), PCR in the adaptation field (8), access unit delimiter (6).
PES_OVERHEAD_BYTES = 33
# PAT, PMT and SDT before a keyframe.
TABLES_BYTES = 3 * TS_PACKET_BYTES
# A fragmented file's boxes per frame (trun entry of 16 bytes), or a Matroska block header: never more.
FRAME_OVERHEAD_BYTES = 64
# File headers of either.
FILE_OVERHEAD_BYTES = 4096


def repaired(repair: TimestampRepair, packet: VideoPacket) -> Timestamps:
    """A packet's times on the clock of `repair`, whatever its own time base."""
    base = packet.time_base
    return repair.repair(
        None if packet.pts is None else to_ticks(packet.pts, base),
        None if packet.dts is None else to_ticks(packet.dts, base),
        to_ticks(packet.duration or 0, base),
    )


@dataclass(frozen=True)
class Carriage:
    """How a codec is carried in a segment."""

    container: str
    filters: str | None = None
    """FFmpeg bitstream filters, applied once to every packet of the source."""


# dump_extra repeats the parameter sets before every keyframe that lacks them: h264_mp4toannexb does so only before
# IDR pictures, and RTSP cameras may send them in the session description alone.
_TS = {
    "h264": Carriage("mpegts", "h264_mp4toannexb,dump_extra=freq=keyframe"),
    "hevc": Carriage("mpegts", "hevc_mp4toannexb,dump_extra=freq=keyframe"),
    "mpeg4": Carriage("mpegts", "mpeg4_unpack_bframes,dump_extra=freq=keyframe"),
    "mpeg2video": Carriage("mpegts", "dump_extra=freq=keyframe"),
    "mpeg1video": Carriage("mpegts", "dump_extra=freq=keyframe"),
}
_MP4 = {name: Carriage("mp4") for name in ("mjpeg", "av1", "vp9")}
# Neither of the two carries these; Matroska does, and every reader that finds the format by itself reads it.
_MKV = {
    name: Carriage("matroska")
    for name in ("vp8", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "theora", "wmv1", "wmv2", "wmv3", "vc1")
}
CARRIAGES = _TS | _MP4 | _MKV

_OPTIONS = {
    # Our own timestamps as they are; tables at the start of each segment.
    "mpegts": {"mpegts_copyts": "1", "mpegts_flags": "+resend_headers+initial_discontinuity"},
    # One fragment per segment, written when the file closes.
    "mp4": {
        "movflags": "frag_custom+empty_moov+default_base_moof+negative_cts_offsets+frag_discont",
        "video_track_timescale": str(TICKS_PER_SECOND),
        "avoid_negative_ts": "disabled",
    },
    "matroska": {"avoid_negative_ts": "disabled", "cluster_time_limit": "3600000"},
}


def carried_size(container: str, info_size: int, *, keyframe: bool, extradata_size: int) -> int:
    """An upper bound of the bytes that a packet of `info_size` bytes takes in a segment."""
    if container != "mpegts":
        return info_size + FRAME_OVERHEAD_BYTES
    payload = info_size + PES_OVERHEAD_BYTES + (extradata_size if keyframe else 0)
    # FFmpeg repeats the tables every 0.1 s of stream; once per frame bounds that for any frame rate above 10 fps, and
    # the slower ones are bounded by their keyframes.
    return -(-payload // TS_PAYLOAD_BYTES) * TS_PACKET_BYTES + TABLES_BYTES


class Muxer:
    """Writes the segments of one opened source."""

    def __init__(self, stream: av.VideoStream, carriage: Carriage) -> None:
        self._stream = stream
        self.container = carriage.container
        self._filter = BitStreamFilterContext(carriage.filters, stream) if carriage.filters else None
        self.extradata_size = len(stream.codec_context.extradata or b"")

    def filtered(self, packet: VideoPacket) -> list[VideoPacket]:
        """The packet as it goes into a segment: usually one, none or two where packed frames are unpacked."""
        return [packet] if self._filter is None else self._filter.filter(packet)

    def mux(self, infos: Iterable[PacketInfo], packets: Iterable[VideoPacket]) -> bytes:
        """One self-contained segment. The packets are given their repaired times and cannot be used again."""
        file = io.BytesIO()
        with av.open(file, "w", format=self.container, options=_OPTIONS[self.container]) as output:
            out = output.add_stream_from_template(self._stream, opaque=True)
            out.time_base = TICK
            for info, packet in zip(infos, packets, strict=True):
                packet.stream = out
                packet.time_base = Fraction(TICK)
                packet.pts = info.pts + LEAD_TICKS
                packet.dts = info.dts + LEAD_TICKS
                packet.duration = info.duration
                output.mux_one(packet)
        return file.getvalue()
