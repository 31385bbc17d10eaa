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

    `boxes`: [K, 4]; `scores`: [K]; `labels`: [K].
    """
    strong = np.flatnonzero(scores >= score_threshold)
    boxes, scores, labels = boxes[strong], scores[strong], labels[strong]
    if len(strong) > 1:
        corners_and_sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxesBatched(
            corners_and_sizes.tolist(), scores.tolist(), labels.tolist(), score_threshold, iou_threshold
        )
        # OpenCV leaves open how it orders equal scores; the candidates' own order decides.
        order = np.sort(np.asarray(kept, dtype=np.int64).ravel())
        order = order[np.argsort(-scores[order], kind="stable")]
        boxes, scores, labels = boxes[order], scores[order], labels[order]
    return Detections(
        boxes.astype(np.float32, copy=False), scores.astype(np.float32, copy=False), labels.astype(np.int64, copy=False)
    )
