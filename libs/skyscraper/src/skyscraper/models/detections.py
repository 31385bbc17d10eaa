"""From a detector's candidates to detections: the score threshold and the suppression of overlapping boxes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from skyscraper.pipeline.pipeline import Detections

COCO_LABELS = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    score_threshold: float,
    iou_threshold: float,
) -> Detections:
    """The detections of one image: candidates at or above the threshold, less those that overlap a better one of the
    same class by more than `iou_threshold`. Best first.

    `boxes`: [K, 4], x_min, y_min, x_max, y_max; `scores`: [K]; `labels`: [K].
    Boxes stay in the pixels they came in; candidates of equal score stay in their order.
    """
    strong = np.flatnonzero(scores >= score_threshold)
    strong = strong[np.argsort(-scores[strong], kind="stable")]
    if len(strong) > 1:
        # Ranks in place of the scores: no two are equal, and all are above OpenCV's exclusive threshold.
        ranks = range(len(strong), 0, -1)
        kept = cv2.dnn.NMSBoxes(_by_class(boxes[strong], labels[strong]).tolist(), ranks, 0.0, iou_threshold)
        strong = strong[np.asarray(kept, dtype=np.intp).ravel()]
    return Detections(boxes[strong], scores[strong], labels[strong])


def _by_class(boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The boxes as corner and size, float64 [m, 4], each class beside the one before it, so that none meets another's.

    OpenCV's own NMSBoxesBatched leaves out of account how far boxes reach to the left of the image; there, objects of
    different classes suppress each other.
    """
    apart = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1, dtype=np.float64)
    apart[:, 0] += labels * (np.ptp(boxes[:, 0::2]) + 1.0)
    return apart
