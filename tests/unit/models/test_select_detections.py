"""Threshold and suppression, against the definition written out plainly."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.models.detections import COCO_LABELS, select
from skyscraper.models.overlap import intersection_over_union

IOU_THRESHOLD = 0.45
SCORE_THRESHOLD = 0.3

Candidates = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


@st.composite
def candidates(draw: st.DrawFn) -> Candidates:
    """Boxes of whole pixels, some left of the image, with scores that often are equal and few classes."""
    corner, side = st.integers(-60, 60), st.integers(1, 80)
    one = st.tuples(corner, corner, side, side, st.integers(0, 20), st.integers(0, 3))
    drawn = np.array(draw(st.lists(one, max_size=24)), dtype=np.float32).reshape(-1, 6)
    drawn = drawn[np.argsort(-drawn[:, 4], kind="stable")]
    boxes = np.concatenate([drawn[:, :2], drawn[:, :2] + drawn[:, 2:4]], axis=1)
    overlap = intersection_over_union(boxes, boxes)
    assume(not np.any(np.abs(overlap - IOU_THRESHOLD) < 1e-5))
    return boxes, (drawn[:, 4] / 20).astype(np.float32), drawn[:, 5].astype(np.int64)


def chosen_plainly(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int]:
    overlap = intersection_over_union(boxes, boxes)
    chosen: list[int] = []
    for index in range(len(boxes)):
        clashes = any(labels[other] == labels[index] and overlap[other, index] > IOU_THRESHOLD for other in chosen)
        if scores[index] >= SCORE_THRESHOLD and not clashes:
            chosen.append(index)
    return chosen


@given(candidates())
def test_the_greedy_choice_by_definition_is_what_is_selected(drawn: Candidates) -> None:
    boxes, scores, labels = drawn
    found = select(boxes, scores, labels, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD)
    expected = chosen_plainly(boxes, scores, labels)
    np.testing.assert_array_equal(found.boxes, boxes[expected])
    np.testing.assert_array_equal(found.scores, scores[expected])
    np.testing.assert_array_equal(found.labels, labels[expected])


@given(candidates())
def test_selecting_twice_changes_nothing(drawn: Candidates) -> None:
    once = select(*drawn, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD)
    twice = select(once.boxes, once.scores, once.labels, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD)
    np.testing.assert_array_equal(once.boxes, twice.boxes)


def test_no_candidate_gives_no_detection() -> None:
    boxes, scores = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    found = select(boxes, scores, np.zeros(0, np.int64), score_threshold=0.1, iou_threshold=0.5)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)


def test_a_score_at_the_threshold_is_kept() -> None:
    boxes, scores = np.array([[0, 0, 9, 9]], np.float32), np.array([0.5], np.float32)
    assert len(select(boxes, scores, np.zeros(1, np.int64), score_threshold=0.5, iou_threshold=0.5).scores) == 1


def test_the_types_are_those_of_the_detector() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [50, 50, 60, 60]], np.float32)
    found = select(
        boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64), score_threshold=0.1, iou_threshold=0.5
    )
    assert [part.dtype.name for part in (found.boxes, found.scores, found.labels)] == ["float32", "float32", "int64"]
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.7)]


def test_the_labels_are_the_80_of_coco() -> None:
    assert len(set(COCO_LABELS)) == len(COCO_LABELS) == 80
    assert (COCO_LABELS[0], COCO_LABELS[2], COCO_LABELS[79]) == ("person", "car", "toothbrush")


def test_a_decoder_that_selects_does_not_load_onnx() -> None:
    code = "import skyscraper.models.detections, sys; sys.exit(any(name.startswith('onnx') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0  # noqa: S603
