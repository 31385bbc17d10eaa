"""Average precision of a detector against ground truth (Everingham et al., PASCAL VOC, 2010: area under the curve)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.models.overlap import intersection_over_union


@dataclass(frozen=True)
class ScoredFrame:
    """One frame's detections and truth, both in the same pixels: boxes [m, 4], scores [m], truth [t, 4]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    truth: NDArray[np.float32]


def average_precision(frames: Sequence[ScoredFrame], *, minimum_iou: float = 0.5) -> float:
    """Each truth is matched at most once, best score first; the precision curve is made monotone before its area."""
    hits: list[bool] = []
    scores: list[float] = []
    for frame in frames:
        free = np.ones(len(frame.truth), dtype=bool)
        overlap = intersection_over_union(frame.boxes, frame.truth)
        for index in np.argsort(-frame.scores, kind="stable"):
            scores.append(float(frame.scores[index]))
            candidates = np.where(free, overlap[index], 0) if len(free) else np.zeros(1)
            best = int(candidates.argmax())
            hit = bool(candidates[best] >= minimum_iou)
            hits.append(hit)
            if hit:
                free[best] = False
    total = sum(len(frame.truth) for frame in frames)
    if not hits or not total:
        return 0.0
    ranked = np.array(hits)[np.argsort(-np.array(scores), kind="stable")]
    recall = np.cumsum(ranked) / total
    precision = np.maximum.accumulate((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
