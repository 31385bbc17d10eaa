"""Tiles: an object anywhere in the picture is one detection, whichever tiles saw it, whole or in part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.errors import ConfigError
from skyscraper.models.overlap import intersection_over_union
from skyscraper.models.tiles import Tiling
from skyscraper.pipeline import Detections

TILING = Tiling(2, 320)


def seen_by_tiles(objects: NDArray[np.float32], scores: list[float], labels: list[int]) -> list[Detections]:
    """What a perfect detector finds in each tile: the part of each object that is inside, if it is a good part."""
    found = []
    for area in TILING.areas():
        inside = np.concatenate([np.maximum(objects[:, :2], area[:2]), np.minimum(objects[:, 2:], area[2:])], axis=1)
        shared = np.clip(inside[:, 2:] - inside[:, :2], 0, None).prod(axis=1)
        seen = shared > 0.25 * (objects[:, 2:] - objects[:, :2]).prod(axis=1)
        found.append(
            Detections(
                (inside - area[[0, 1, 0, 1]])[seen].astype(np.float32),
                np.array(scores, np.float32)[seen],
                np.array(labels, np.int64)[seen],
            )
        )
    return found


def test_four_tiles_cover_the_picture_and_cost_four_looks() -> None:
    shape = (2, TILING.image_size, TILING.image_size, 3)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    cut = TILING.cut(images)
    assert cut.shape == (8, 320, 320, 3)
    for index, (x_min, y_min, x_max, y_max) in enumerate(TILING.areas().astype(int)):
        np.testing.assert_array_equal(cut[4 + index], images[1, y_min:y_max, x_min:x_max])
    assert TILING.areas()[:, 2:].max() == TILING.image_size


@given(
    st.floats(0, 440), st.floats(0, 440), st.floats(12, 100), st.floats(12, 100), st.floats(0.3, 1), st.integers(0, 3)
)
def test_an_object_anywhere_is_one_detection_with_its_whole_box(
    x: float, y: float, width: float, height: float, score: float, label: int
) -> None:
    box = np.array([[x, y, x + width, y + height]], dtype=np.float32)
    merged = TILING.merge(seen_by_tiles(box, [score], [label]), iou_threshold=0.5)
    assert len(merged.scores) == 1
    assert intersection_over_union(merged.boxes, box)[0, 0] > 0.7
    assert merged.scores[0] == pytest.approx(score)
    assert merged.labels[0] == label


def test_an_object_larger_than_the_overlap_is_put_together_from_its_parts() -> None:
    box = np.array([[150, 100, 400, 160]], dtype=np.float32)
    (joined,) = TILING.merge(seen_by_tiles(box, [0.9], [0]), iou_threshold=0.5).boxes
    np.testing.assert_allclose(joined, box[0])


def test_neighbours_over_a_seam_stay_two() -> None:
    boxes = np.array([[230, 240, 265, 320], [275, 240, 310, 320], [230, 240, 265, 320]], dtype=np.float32)
    merged = TILING.merge(seen_by_tiles(boxes, [0.9, 0.8, 0.7], [0, 0, 2]), iou_threshold=0.5)
    assert sorted(merged.labels.tolist()) == [0, 0, 2]
    assert merged.scores.tolist() == sorted(merged.scores.tolist(), reverse=True)


def test_nothing_found_is_nothing_merged() -> None:
    merged = TILING.merge(seen_by_tiles(np.zeros((0, 4), np.float32), [], []), iou_threshold=0.5)
    assert merged.boxes.shape == (0, 4)


def test_one_tile_is_the_picture_itself() -> None:
    whole = Tiling.parse("1x1", 320)
    images = np.zeros((2, 320, 320, 3), np.uint8)
    assert whole.cut(images) is images
    assert whole.image_size == 320


@pytest.mark.parametrize("grid", ["2x3", "0x0", "two", ""])
def test_a_grid_that_is_none_is_refused(grid: str) -> None:
    with pytest.raises(ConfigError, match="x"):
        Tiling.parse(grid, 320)
