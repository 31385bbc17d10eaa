"""Carrying detections on to frames at which no detector looked: the paper's cheap tracker between detections (5.2).

The paper uses KCF, which is in OpenCV's contributed modules only. Here every box follows the median motion of some
points inside it (Lucas-Kanade; the forward-backward check of Kalal et al., ICPR 2010), which tells as KCF does when
it has lost its object: the object is then left out until a detector sees it again.

It needs nothing but the frames of one segment, so it belongs to the stateless step.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from skyscraper.pipeline.pipeline import Detections, Frames

# Points on a grid inside the box; a median over fewer follows single wrong ones.
_GRID = 5
# Middle part of the box, width and height, that is object rather than street behind it.
_INNER = (0.5, 0.7)
# Of a point that was followed forth and back; beyond it the point is lost (Kalal et al. drop the worse half instead).
# With these two, 0.91 of the street camera's people were still in their box (IoU 0.5) over 4 frames at 10 a second,
# and 0.93 of the boxes were right; with 1 pixel and 0.4 it was 0.85 and 0.94.
_MOST_ERROR_PIXELS = 2.0
# Of the points; with fewer left the object is lost.
_FEWEST_LEFT = 0.25
_WINDOW_PIXELS, _PYRAMID_LEVELS = (11, 11), 2


def carry(frames: Frames, found: Sequence[Detections], every: int) -> list[Detections]:
    """One Detections for each frame. `found`: those of frame 0 and each `every`-th after it, boxes in source pixels.

    A carried box keeps its score and label.
    """
    count = len(frames.images)
    if every == 1 or not count:
        return list(found)
    _, height, width, _ = frames.images.shape
    scale = np.array([frames.source_width / width, frames.source_height / height] * 2, dtype=np.float32)
    carried: list[Detections] = []
    before: NDArray[np.uint8] | None = None
    for index in range(count):
        grey = np.asarray(cv2.cvtColor(frames.images[index], cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        if before is None or index % every == 0:
            carried.append(found[index // every])
        else:
            carried.append(_moved(carried[-1], before, grey, scale))
        before = grey
    return carried


def _moved(
    last: Detections, before: NDArray[np.uint8], after: NDArray[np.uint8], scale: NDArray[np.float32]
) -> Detections:
    """Boxes of one frame where they are in the next; lost ones are left out."""
    boxes = last.boxes.reshape(-1, 4) / scale
    if not len(boxes):
        return last
    points = _points(boxes)
    ahead, found_ahead = _follow(before, after, points)
    back, found_back = _follow(after, before, ahead)
    error = np.linalg.norm(back - points, axis=1)
    kept = (found_ahead & found_back & (error <= _MOST_ERROR_PIXELS)).reshape(len(boxes), -1)
    moves = (ahead - points).reshape(len(boxes), -1, 2)
    height, width = after.shape
    moved, rows = [], []
    for row, box in enumerate(boxes):
        if kept[row].mean() < _FEWEST_LEFT:
            continue
        x, y = np.median(moves[row][kept[row]], axis=0)
        box = box + np.array([x, y, x, y], dtype=np.float32)
        middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if 0 <= middle_x < width and 0 <= middle_y < height:
            moved.append(box * scale)
            rows.append(row)
    return Detections(np.array(moved, dtype=np.float32).reshape(-1, 4), last.scores[rows], last.labels[rows])


def _points(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """[boxes * _GRID², 2], box by box."""
    share = np.linspace(-0.5, 0.5, _GRID, dtype=np.float32)
    x, y = np.meshgrid(share * _INNER[0], share * _INNER[1])
    offsets = np.stack([x.ravel(), y.ravel()], axis=1)
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    points: NDArray[np.float32] = (middles[:, None] + offsets[None] * sides[:, None]).reshape(-1, 2)
    return points.astype(np.float32)


def _follow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where points [p, 2] went, and whether they were found."""
    start = points.reshape(-1, 1, 2)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        start,
        np.zeros_like(start),
        winSize=_WINDOW_PIXELS,
        maxLevel=_PYRAMID_LEVELS,
    )
    return np.asarray(moved, dtype=np.float32).reshape(-1, 2), found.ravel().astype(bool)
