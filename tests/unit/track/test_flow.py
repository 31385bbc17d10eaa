"""Carrying boxes on between detections: they follow what moves, and are given up where it is lost."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skyscraper.pipeline import Detections, Frames
from skyscraper.track.flow import carry

SIZE, FRAMES = 160, 12
STEP = 3


def film() -> Frames:
    """A textured square of 32 pixels that moves to the right over a textured street, both from a seed."""
    rng = np.random.default_rng(3)
    street, thing = (smooth(rng, side) for side in (SIZE, 32))
    images = np.stack([street] * FRAMES)
    for number in range(FRAMES):
        left = 20 + STEP * number
        images[number, 60:92, left : left + 32] = thing
    return Frames(images, np.arange(FRAMES) / 10, 2 * SIZE, SIZE, FRAMES, FRAMES / 10)


def smooth(rng: np.random.Generator, side: int) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (side // 4, side // 4, 3))
    fine: NDArray[np.uint8] = np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1).astype(np.uint8)
    return fine


def seen(left: float) -> Detections:
    """In pixels of the source, which is twice as wide as the picture."""
    box = np.array([[2 * left, 60, 2 * (left + 32), 92]], np.float32)
    return Detections(box, np.array([0.8], np.float32), np.array([0], np.int64))


def test_a_box_follows_its_object_in_the_pixels_of_the_source() -> None:
    carried = carry(film(), [seen(20), seen(20 + STEP * 10)], every=10)
    assert len(carried) == FRAMES
    for number, found in enumerate(carried):
        np.testing.assert_allclose(found.boxes, seen(20 + STEP * number).boxes, atol=3)
        assert found.scores.tolist() == pytest.approx([0.8])


def test_an_object_that_nothing_looks_like_any_more_is_given_up() -> None:
    frames = film()
    for number in range(6, FRAMES):
        frames.images[number] = smooth(np.random.default_rng(number), SIZE)
    carried = carry(frames, [seen(20)], every=FRAMES)
    assert [len(found.boxes) for found in carried] == [1] * 6 + [0] * 6


def test_detecting_in_every_frame_carries_nothing() -> None:
    found = [seen(number) for number in range(FRAMES)]
    assert carry(film(), found, every=1) == found


def test_nothing_seen_and_no_frames_are_no_error() -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert [len(found.boxes) for found in carry(film(), [nothing], every=FRAMES)] == [0] * FRAMES
    empty = Frames(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0), 64, 64, 0, 0.0)
    assert carry(empty, [], every=5) == []
