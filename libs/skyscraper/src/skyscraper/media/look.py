"""A look at a segment's first frames: what moves, where, and in what light, for a few milliseconds of CPU.

Packet sizes tell how much the encoder had to say; not whether it spoke of people or of noise at night. The keyframe and
a frame a third of a second later, at a quarter of a small camera's size, do (see docs/decisions/0010).

A pure function of the bytes. Its cost is bounded: so many packets, so many pixels, one thread.
"""

from __future__ import annotations

import math

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from skyscraper.errors import BadSegment
from skyscraper.media.opening import open_segment

# What `look` tells, in this order.
LOOK_FEATURES = (
    "look_luma",
    "look_detail",
    "look_moving_share",
    "look_moving_energy",
    "look_moving_objects",
    "look_moving_extent",
    "look_moving_largest",
    "look_moving_height",
)

# A walker leaves about half of his own width behind in this time: less shows noise, more decodes more frames.
_APART_SECONDS = 0.3
# Timestamps are rounded to 1 ms in some containers.
_SLACK_SECONDS = 0.002
# Reaches 0.3 s at 25 frames per second, and half as far at 60.
_MAX_PACKETS = 9
# 4K, a little more in height: nine such frames take a quarter of a second; nobody knows what larger ones would take.
MAX_LOOK_PIXELS = 4096 * 2304
# Pixels of the small picture: 192 x 144 where the camera is 4:3. A person of a fifteenth of the height covers 30.
_SMALL_PIXELS = 192 * 144
# Brightness between two frames differs by noise; what differs by more than so many of its deviations has moved.
_NOISE_DEVIATIONS = 4.0
# Of 255; encoders at night swallow the noise, and then everything would count as more than it.
_LEAST_DIFFERENCE = 3.0
# Smaller spots, after they have been joined over gaps of a pixel, are encoding artefacts.
_SPOT_PIXELS = 15
_MEDIAN_TO_DEVIATION = 1.4826

Picture = NDArray[np.float32]


def look(value: bytes) -> dict[str, float]:
    """Of the first frames of a playable segment. Values do not depend on the resolution.

    `look_luma` mean brightness, 0 to 255; `look_detail` mean brightness of fine structure; `look_moving_share` of the
    picture; `look_moving_energy` brightness of what moves, as a root mean square over the picture;
    `look_moving_objects` their number; `look_moving_extent` sum of the roots of their shares of the picture;
    `look_moving_largest` share of the largest; `look_moving_height` where they are on average, 0 top to 1 bottom.
    A segment of one frame tells the first two only.

    Raises BadSegment with reason `empty`, `corrupt`, `no_video`, `unknown_codec` or `too_large`.
    """
    if not value:
        raise BadSegment("empty", "the segment has no bytes")
    try:
        with open_segment(value) as container:
            pictures = _first_and_later(container)
    except (FFmpegError, ValueError) as error:
        # PyAV raises ValueError where damage makes sizes or formats that it does not know.
        raise BadSegment("corrupt", f"no look at a segment of {len(value)} bytes: {error}") from error
    return compare(pictures)


def compare(pictures: list[Picture]) -> dict[str, float]:
    """The features of one or two small pictures, float32 [height, width], 0 to 255."""
    first = pictures[0]
    fine = np.abs(first - cv2.GaussianBlur(first, (0, 0), 2.0))
    told = [float(first.mean()), float(fine.mean())]
    if len(pictures) > 1:
        change = cv2.GaussianBlur(pictures[1] - first, (0, 0), 1.0)
        # Light that changes everywhere, by clouds or by the camera's own exposure, is no motion.
        change = np.abs(change - np.median(change))
        told += _motion(change)
    return dict(zip(LOOK_FEATURES, told, strict=False))


def _motion(change: Picture) -> list[float]:
    noise = _MEDIAN_TO_DEVIATION * float(np.median(change))
    moving = (change > max(_NOISE_DEVIATIONS * noise, _LEAST_DIFFERENCE)).astype(np.uint8)
    energy = math.sqrt(float((change * change * moving).mean()))
    _, _, spots, centres = cv2.connectedComponentsWithStats(
        cv2.dilate(moving, np.ones((3, 3), np.uint8)), connectivity=8
    )
    # Row 0 is what does not move.
    areas = spots[1:, cv2.CC_STAT_AREA].astype(np.float64)
    kept = areas >= _SPOT_PIXELS
    shares, heights = areas[kept] / change.size, centres[1:, 1][kept] / len(change)
    if not len(shares):
        return [float(moving.mean()), energy, 0.0, 0.0, 0.0, 0.5]
    return [
        float(moving.mean()),
        energy,
        float(len(shares)),
        float(np.sqrt(shares).sum()),
        float(shares.max()),
        float((shares * heights).sum() / shares.sum()),
    ]


def _first_and_later(container: av.container.InputContainer) -> list[Picture]:
    """The first frame, and the one shown 0.3 s after it or the last that may be decoded."""
    if not container.streams.video:
        raise BadSegment("no_video", f"the segment ({container.format.name}) has no video stream")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None:
        raise BadSegment("unknown_codec", "FFmpeg has no decoder for the segment's video codec")
    codec.thread_count = 1
    # The smoothing of block edges is a third of the work, and vanishes when the picture is made small.
    codec.options = {"skip_loop_filter": "all"}
    apart = (_APART_SECONDS - _SLACK_SECONDS) / float(stream.time_base or 1)
    frames: dict[int, av.VideoFrame] = {}

    def reached() -> bool:
        return bool(frames) and max(frames) - min(frames) >= apart

    fed = 0
    for packet in container.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        if codec.width * codec.height > MAX_LOOK_PIXELS:
            raise BadSegment("too_large", f"{codec.width}x{codec.height} pixels are more than {MAX_LOOK_PIXELS}")
        frames |= {frame.pts: frame for frame in codec.decode(packet) if frame.pts is not None}
        fed += 1
        if fed == _MAX_PACKETS or reached():
            break
    if not reached():
        frames |= {frame.pts: frame for frame in codec.decode(None) if frame.pts is not None}
    if not frames:
        raise BadSegment("corrupt", "no frame can be decoded")
    chosen = {min(frames), min((pts for pts in frames if pts - min(frames) >= apart), default=max(frames))}
    return _small([frames[pts] for pts in sorted(chosen)])


def _small(frames: list[av.VideoFrame]) -> list[Picture]:
    scale = math.sqrt(_SMALL_PIXELS / (frames[0].width * frames[0].height))
    width, height = (max(16, round(extent * scale)) for extent in (frames[0].width, frames[0].height))
    reformatter = VideoReformatter()
    return [
        reformatter.reformat(frame, width, height, "gray", interpolation="AREA", threads=1)
        .to_ndarray()
        .astype(np.float32)
        for frame in frames
    ]
