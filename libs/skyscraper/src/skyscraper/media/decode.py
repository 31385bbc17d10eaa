"""Decode from a segment only the frames that the knobs ask for, at the size they ask for.

Decoding is the second largest cost after inference, so work that no sampled frame needs is skipped where the codec
allows it: frames that nothing refers to, all but keyframes where keyframes are enough, and everything after the last
sampled frame. One thread per segment: streams already run in parallel, and a codec's own threads only add overhead
to each core-second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from skyscraper.errors import BadSegment
from skyscraper.media.opening import open_segment
from skyscraper.media.ticks import covered
from skyscraper.pipeline.pipeline import Frames, Sampling

# Enough for 8K cameras; a header that claims more is damage or an attack on memory.
MAX_SOURCE_PIXELS = 8192 * 8192
# 2 s at 120 fps is 240; a segment that asks for more sampled frames than this is not what it says it is.
MAX_SAMPLED_FRAMES = 1024
# A frame may come a little before its slot on the sampling grid because timestamps are rounded (90 kHz, or 1 ms
# in some containers); without the allowance such a frame would slip to the next slot.
_GRID_SLACK_SECONDS = 0.002


@dataclass(frozen=True)
class PacketInfo:
    """What is known of a coded frame before it is decoded."""

    pts_seconds: float
    keyframe: bool


def choose_frames(packets: Sequence[PacketInfo], frames_per_second: float) -> list[int]:
    """The indices (in presentation order) of the frames to sample: the first at or after each slot of a regular grid
    that starts at the segment's first frame. With a rate above the video's own, every frame is taken.
    """
    order = sorted(range(len(packets)), key=lambda index: packets[index].pts_seconds)
    if not order:
        return []
    start = packets[order[0]].pts_seconds
    chosen: list[int] = []
    next_slot = 0
    for index in order:
        position = (packets[index].pts_seconds - start + _GRID_SLACK_SECONDS) * frames_per_second
        if position >= next_slot:
            chosen.append(index)
            next_slot = int(position) + 1
    return chosen


def decode_segment(value: bytes, sampling: Sampling, *, expected_frames: int | None = None) -> Frames:
    """The sampled frames of a segment, scaled to `sampling.width` x `sampling.height` (no letterbox).

    `expected_frames` is the publisher's own count; fewer coded frames than that mean a truncated segment.
    Raises BadSegment with reason `empty`, `corrupt`, `truncated`, `no_video`, `unknown_codec` or `too_large`.
    """
    if not value:
        raise BadSegment("empty", "the segment has no bytes")
    try:
        with open_segment(value) as container:
            return _decode(container, sampling, expected_frames)
    except FFmpegError as error:
        raise BadSegment(
            "corrupt", f"FFmpeg cannot read the segment of {len(value)} bytes: {error.strerror}"
        ) from error


def _decode(container: av.container.InputContainer, sampling: Sampling, expected_frames: int | None) -> Frames:
    if not container.streams.video:
        raise BadSegment("no_video", f"the segment ({container.format.name}) has no video stream")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None:
        raise BadSegment("unknown_codec", "FFmpeg has no decoder for the segment's video codec")
    if codec.width * codec.height > MAX_SOURCE_PIXELS:
        raise BadSegment(
            "too_large", f"frames of {codec.width}x{codec.height} are more than {MAX_SOURCE_PIXELS} pixels"
        )
    codec.thread_count = 1
    time_base = float(stream.time_base or 0)
    packets = [packet for packet in container.demux(stream) if packet.size and packet.pts is not None]
    if not packets:
        raise BadSegment("corrupt", "the segment has no readable video packet")
    if expected_frames is not None and len(packets) < expected_frames:
        raise BadSegment("truncated", f"the segment has {len(packets)} of the {expected_frames} frames it should have")
    infos = [PacketInfo((packet.pts or 0) * time_base, packet.is_keyframe) for packet in packets]
    chosen = choose_frames(infos, sampling.frames_per_second)
    if len(chosen) > MAX_SAMPLED_FRAMES:
        raise BadSegment("too_large", f"{len(chosen)} frames to sample, more than {MAX_SAMPLED_FRAMES}")
    wanted = {packets[index].pts for index in chosen}
    keyframes_only = all(packets[index].is_keyframe for index in chosen)
    codec.skip_frame = "NONKEY" if keyframes_only else "DEFAULT"
    start = min(info.pts_seconds for info in infos)
    images: list[NDArray[np.uint8]] = []
    times: list[float] = []
    decoded = 0
    reformatter = VideoReformatter()
    size = (0, 0)

    def take(frames: list[av.VideoFrame]) -> None:
        nonlocal decoded, size
        decoded += len(frames)
        for frame in frames:
            if frame.pts in wanted:
                wanted.discard(frame.pts)
                size = size if images else (frame.width, frame.height)
                scaled = reformatter.reformat(
                    frame, sampling.width, sampling.height, "rgb24", interpolation="BILINEAR", threads=1
                )
                images.append(np.asarray(scaled.to_ndarray(), dtype=np.uint8))
                times.append((frame.pts or 0) * time_base - start)

    for packet in packets:
        if not wanted:
            break
        if not keyframes_only:
            # A frame that is not sampled is needed only if others refer to it.
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        try:
            take(codec.decode(packet))
        except FFmpegError:
            # Damage inside one frame; the codec goes on with the next, and what is missing is judged below.
            continue
    if wanted:
        try:
            take(codec.decode(None))
        except FFmpegError as error:
            if not images:
                raise BadSegment("corrupt", f"no frame can be decoded: {error.strerror}") from error
    # Cameras on bad links lose a frame now and then; a segment of which less than half can be seen says little.
    if len(images) * 2 < len(chosen):
        raise BadSegment("corrupt", f"only {len(images)} of {len(chosen)} sampled frames can be decoded")
    return Frames(
        images=np.stack(images),
        times_seconds=np.asarray(times, dtype=np.float64),
        source_width=size[0],
        source_height=size[1],
        frames_decoded=decoded,
        duration_seconds=covered([info.pts_seconds for info in infos]),
    )
