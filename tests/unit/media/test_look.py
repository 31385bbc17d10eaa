"""A look at a segment's first frames."""

from __future__ import annotations

import functools
import io
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.errors import BadSegment
from skyscraper.media.look import LOOK_FEATURES, MAX_LOOK_PIXELS, look

CODECS = ("libx264", "libx265")
OPTIONS = {"libx264": {"preset": "superfast"}, "libx265": {"preset": "superfast", "x265-params": "log-level=none"}}
WIDTH, HEIGHT = 384, 288
# Where walkers begin, as shares of the picture; each is a twentieth of it wide and a fifth high.
PLACES = ((0.1, 0.6), (0.4, 0.65), (0.7, 0.7))


def picture(seconds: float, walkers: int, *, light: float, noise: float) -> NDArray[np.uint8]:
    """A street with texture of its own; walkers cross an eighth of it a second."""
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.uniform(60, 180, (18, 24)).astype(np.float32), (WIDTH, HEIGHT))
    for x, y in PLACES[:walkers]:
        left, top = round((x + seconds / 8) * WIDTH), round(y * HEIGHT)
        image[top : top + HEIGHT // 5, left : left + WIDTH // 20] = 235
    lit = np.asarray(image, dtype=np.float64) * light
    if noise:
        lit = lit + np.random.default_rng(round(seconds * 1000)).normal(0, noise, lit.shape)
    return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)


@functools.cache
def segment(
    walkers: int = 0,
    *,
    codec: str = "libx264",
    rate: int = 10,
    scale: float = 1.0,
    light: float = 1.0,
    noise: float = 0.0,
    frames: int = 12,
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=rate, options={"g": "50", **OPTIONS[codec]}))
        stream.width, stream.height, stream.pix_fmt = round(WIDTH * scale), round(HEIGHT * scale), "yuv420p"
        for number in range(frames):
            grey = picture(number / rate, walkers, light=light, noise=noise)
            grey = np.asarray(cv2.resize(grey, (stream.width, stream.height)), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def moving(told: dict[str, float]) -> float:
    return told["look_moving_share"]


@pytest.mark.parametrize("codec", CODECS)
def test_a_still_scene_has_no_motion(codec: str) -> None:
    told = look(segment(codec=codec))
    assert tuple(told) == LOOK_FEATURES
    assert moving(told) == told["look_moving_objects"] == told["look_moving_energy"] == 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("walkers", [1, 2, 3])
def test_who_walks_is_counted_and_placed(codec: str, walkers: int) -> None:
    told = look(segment(walkers, codec=codec))
    # Where each was, and where each is: their trails are one spot or two.
    assert walkers <= told["look_moving_objects"] <= 2 * walkers
    assert told["look_moving_height"] == pytest.approx(np.mean([y for _, y in PLACES[:walkers]]) + 0.1, abs=0.05)
    assert told["look_moving_largest"] < 0.05
    assert moving(told) > moving(look(segment(walkers - 1, codec=codec)))


def test_noise_at_night_is_no_motion() -> None:
    day, night = look(segment(2)), look(segment(2, light=0.25, noise=6.0))
    assert night["look_luma"] < 0.5 * day["look_luma"]
    assert moving(night) < 1.5 * moving(day)
    assert moving(look(segment(0, light=0.25, noise=6.0))) < 0.1 * moving(night)


def test_light_that_changes_everywhere_is_no_motion() -> None:
    still = picture(0, 0, light=1.0, noise=0.0).astype(np.float32)
    from skyscraper.media.look import compare

    assert compare([still, still + 20])["look_moving_share"] == 0


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("codec", CODECS)
def test_the_resolution_changes_little(codec: str, scale: float) -> None:
    told, other = look(segment(3, codec=codec)), look(segment(3, codec=codec, scale=scale))
    for name in ("look_luma", "look_moving_share", "look_moving_energy", "look_moving_extent", "look_moving_height"):
        assert other[name] == pytest.approx(told[name], rel=0.2), name


def test_the_frame_rate_changes_little() -> None:
    told, other = look(segment(3)), look(segment(3, rate=25))
    assert moving(other) == pytest.approx(moving(told), rel=0.2)


def test_a_segment_of_one_frame_tells_of_its_light_only() -> None:
    assert list(look(segment(2, frames=1))) == ["look_luma", "look_detail"]


@pytest.mark.parametrize("value", [b"", b"no video at all" * 100])
def test_what_is_no_video_gives_no_features(value: bytes) -> None:
    with pytest.raises(BadSegment):
        look(value)


def test_a_picture_too_large_is_not_decoded() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 4096, MAX_LOOK_PIXELS // 4096 + 16, "yuvj420p"
        frame = av.VideoFrame(stream.width, stream.height, "yuvj420p")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BadSegment, match="pixels") as caught:
        look(file.getvalue())
    assert caught.value.reason == "too_large"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_gives_features_or_a_reason_and_nothing_else(data: Any) -> None:
    value = bytearray(segment(2))
    for _ in range(data.draw(st.integers(1, 30))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value)))
    try:
        told = look(bytes(value[:cut]))
    except BadSegment:
        return
    assert set(told) <= set(LOOK_FEATURES)
    assert all(np.isfinite(number) for number in told.values())
