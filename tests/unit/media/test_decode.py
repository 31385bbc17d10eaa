"""Decoding by knobs: the frames asked for, and no more work than they need."""

from __future__ import annotations

import functools
import io
import random
from typing import cast

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.errors import BadSegment
from skyscraper.media.decode import PacketInfo, choose_frames, decode_segment
from skyscraper.pipeline import Sampling

FRAMES, RATE = 20, 10


@functools.cache
def segment(codec: str = "libx264", container_format: str = "mpegts", preset: str = "ultrafast") -> bytes:
    """Two seconds of a square that grows by the frame, a keyframe every second."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        options = {"g": "10", "preset": preset} if codec == "libx264" else {"g": "10"}
        stream = cast("av.VideoStream", container.add_stream(codec, rate=RATE, options=options))
        stream.width, stream.height = 160, 128
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(FRAMES):
            image = np.zeros((128, 160, 3), np.uint8)
            image[: 8 + 6 * number, :80] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def height_of_square(image: np.ndarray) -> int:
    return int((image[:, 20, 0] > 128).sum())


@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=80),
    st.floats(0.1, 60),
    st.randoms(use_true_random=False),
)
def test_samples_are_the_first_frames_at_or_after_a_regular_grid(
    gaps_ms: list[int], rate: float, shuffle: random.Random
) -> None:
    times = list(np.cumsum(gaps_ms) / 1000)
    shuffled = times[:]
    shuffle.shuffle(shuffled)
    chosen = [shuffled[index] for index in choose_frames([PacketInfo(time, False) for time in shuffled], rate)]
    assert chosen[0] == times[0]
    assert chosen == sorted(set(chosen))
    # No two samples share a slot of the grid, and no slot with a frame in it goes without.
    slots = [int((time - times[0] + 0.002) * rate) for time in chosen]
    assert len(set(slots)) == len(slots)
    assert set(slots) == {int((time - times[0] + 0.002) * rate) for time in times}


def test_a_rate_above_the_videos_own_takes_every_frame() -> None:
    frames = decode_segment(segment(), Sampling(60, 160, 128), expected_frames=FRAMES)
    assert len(frames.images) == FRAMES
    assert [height_of_square(image) for image in frames.images] == pytest.approx(
        [8 + 6 * number for number in range(FRAMES)], abs=2
    )


@pytest.mark.parametrize(
    ("codec", "container_format"), [("libx264", "mpegts"), ("mpeg4", "mpegts"), ("mjpeg", "matroska")]
)
def test_samples_show_the_moments_asked_for(codec: str, container_format: str) -> None:
    frames = decode_segment(segment(codec, container_format), Sampling(5, 160, 128))
    assert frames.times_seconds == pytest.approx(np.arange(10) / 5, abs=0.002)
    assert [height_of_square(image) for image in frames.images] == pytest.approx(
        [8 + 12 * number for number in range(10)], abs=3
    )


def test_keyframes_are_enough_at_one_frame_per_second() -> None:
    frames = decode_segment(segment(), Sampling(1, 64, 64))
    assert len(frames.images) == frames.frames_decoded == 2


def test_frames_nothing_refers_to_are_skipped() -> None:
    sampled = decode_segment(segment(preset="medium"), Sampling(5, 64, 64))
    assert sampled.frames_decoded < FRAMES


def test_images_have_the_size_asked_for_and_boxes_the_sources() -> None:
    frames = decode_segment(segment(), Sampling(2, 96, 64))
    assert frames.images.shape == (4, 64, 96, 3)
    assert frames.images.dtype == np.uint8
    assert (frames.source_width, frames.source_height) == (160, 128)
    assert frames.duration_seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (bytes(5000), "corrupt"),
        (b"\x47" * 18800, "corrupt"),
        (segment()[: len(segment()) // 2], "truncated"),
    ],
    ids=["empty", "zeros", "sync-bytes", "half"],
)
def test_a_bad_segment_is_told_by_a_reason(value: bytes, reason: str) -> None:
    with pytest.raises(BadSegment) as caught:
        decode_segment(value, Sampling(5, 64, 64), expected_frames=FRAMES)
    assert caught.value.reason == reason


@given(st.binary(max_size=2000), st.integers(0, 3000))
def test_no_bytes_whatever_raise_anything_else(noise: bytes, position: int) -> None:
    good = segment()
    for value in (noise, good[:position] + noise + good[position + len(noise) :]):
        try:
            frames = decode_segment(value, Sampling(5, 64, 64))
        except BadSegment:
            continue
        assert len(frames.images) == len(frames.times_seconds) > 0
