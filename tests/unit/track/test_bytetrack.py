"""A tracker resumed from bytes goes on as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.pipeline import Detections
from skyscraper.track import TrackedObject, Tracker
from skyscraper.track.bytetrack import BadTrackerState

FRAMES = 40


def tracker() -> Tracker:
    return Tracker(activation_score=0.4, lost_seconds=1.0, minimum_iou=0.1)


def walk(seed: int) -> list[tuple[float, Detections]]:
    """People who walk straight, are missed now and then, and are seen more or less clearly."""
    rng = np.random.default_rng(seed)
    corners, speeds = rng.uniform(0, 500, (8, 2)), rng.normal(0, 5, (8, 2))
    frames = []
    for number in range(FRAMES):
        seen = rng.random(8) < 0.8
        corner = (corners + speeds * number)[seen]
        boxes = np.concatenate([corner, corner + [40, 80]], axis=1).astype(np.float32)
        scores = rng.uniform(0.25, 0.9, len(boxes)).astype(np.float32)
        frames.append((1.7e9 + number / 5, Detections(boxes, scores, np.zeros(len(boxes), np.int64))))
    return frames


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sets(st.integers(1, FRAMES - 1), max_size=8))
def test_it_does_not_matter_where_a_stream_changes_hands(seed: int, cuts: set[int]) -> None:
    frames = walk(seed)
    steady = tracker()
    expected = [steady.update(*frame) for frame in frames]
    found: list[list[TrackedObject]] = []
    handed = tracker()
    for number, frame in enumerate(frames):
        if number in cuts:
            state = handed.snapshot()
            handed = tracker()
            handed.restore(state)
        found.append(list(handed.update(*frame)))
    assert found == expected
    assert handed.snapshot() == steady.snapshot()


def test_a_frame_from_the_past_changes_nothing() -> None:
    one = tracker()
    frames = walk(1)
    for frame in frames[:10]:
        one.update(*frame)
    before = one.snapshot()
    assert one.update(*frames[3]) == []
    assert one.snapshot() == before


def test_an_empty_street_is_no_error() -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert tracker().update(1.0, nothing) == []


@pytest.mark.parametrize("state", [b"\xff\xff", bytes([10, 2, 8, 1])], ids=["not-protobuf", "track-without-numbers"])
def test_state_that_cannot_be_read_says_so(state: bytes) -> None:
    with pytest.raises(BadTrackerState):
        tracker().restore(state)
