"""Average precision on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.models.average_precision import ScoredFrame, average_precision
from skyscraper.models.overlap import intersection_over_union

LEFT, RIGHT, NOWHERE = [0, 0, 10, 10], [50, 0, 60, 10], [0, 80, 10, 90]


def frame(boxes: list[list[int]], scores: list[float], truth: list[list[int]]) -> ScoredFrame:
    return ScoredFrame(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(truth, np.float32).reshape(-1, 4),
    )


def test_every_object_found_and_nothing_else_is_one() -> None:
    assert average_precision([frame([LEFT, RIGHT], [0.9, 0.8], [RIGHT, LEFT])]) == pytest.approx(1.0)


def test_half_of_the_objects_found_without_a_mistake_is_a_half() -> None:
    assert average_precision([frame([LEFT], [0.9], [LEFT, RIGHT])]) == pytest.approx(0.5)


def test_a_mistake_that_scores_highest_halves_the_precision() -> None:
    assert average_precision([frame([NOWHERE, LEFT], [0.9, 0.8], [LEFT])]) == pytest.approx(0.5)


def test_a_mistake_that_scores_lowest_costs_nothing() -> None:
    assert average_precision([frame([LEFT, NOWHERE], [0.9, 0.8], [LEFT])]) == pytest.approx(1.0)


def test_a_second_box_on_the_same_object_is_a_mistake() -> None:
    # Ranked: hit, mistake, hit. Recall 1/2 at precision 1, recall 1 at precision 2/3.
    found = average_precision([frame([LEFT, LEFT, RIGHT], [0.9, 0.8, 0.7], [LEFT, RIGHT])])
    assert found == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_scores_are_ranked_over_all_frames() -> None:
    found = average_precision([frame([NOWHERE], [0.9], []), frame([LEFT], [0.8], [LEFT])])
    assert found == pytest.approx(0.5)


def test_no_truth_and_no_detection_are_zero() -> None:
    assert average_precision([]) == 0.0
    assert average_precision([frame([], [], [LEFT])]) == 0.0
    assert average_precision([frame([LEFT], [0.9], [])]) == 0.0


def test_overlap_of_known_boxes() -> None:
    boxes = np.array([LEFT, [5, 0, 15, 10], [3, 3, 3, 9]], np.float32)
    expected = np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(intersection_over_union(boxes, boxes), expected, rtol=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=12),
    st.lists(st.integers(0, 5), max_size=6, unique=True),
)
def test_it_lies_between_zero_and_the_best_recall(found: list[tuple[int, int]], there: list[int]) -> None:
    def cell(index: int) -> list[int]:
        return [index * 20, 0, index * 20 + 10, 10]

    boxes, scores = [cell(index) for index, _ in found], [score / 100 for _, score in found]
    reached = len({index for index, _ in found} & set(there)) / max(1, len(there))
    value = average_precision([frame(boxes, scores, [cell(index) for index in there])])
    assert 0.0 <= value <= reached + 1e-9
