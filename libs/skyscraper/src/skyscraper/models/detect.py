"""A served detector over the frames of a segment: what pipelines' stateless step has in common."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyscraper.models.detections import COCO_LABELS, select
from skyscraper.models.tiles import Tiling
from skyscraper.pipeline.pipeline import Detections, Frames, ModelClient, Sampling


@dataclass(frozen=True)
class Detector:
    """Which model looks for what, and how the frames are shown to it."""

    model: str
    wanted: tuple[str, ...]
    """Labels of COCO_LABELS."""
    tiling: Tiling
    score_threshold: float
    iou_threshold: float
    """Of two boxes of one label that overlap more, the surer one is kept."""

    def sampling(self, frames_per_second: float) -> Sampling:
        """Frames as `run` wants them."""
        side = self.tiling.image_size
        return Sampling(frames_per_second, width=side, height=side)

    def run(self, frames: Frames, models: ModelClient) -> list[Detections]:
        """One Detections for each frame, its boxes in the pixels of the source video."""
        if not len(frames.images):
            return []
        outputs = models.infer(self.model, {"images": self.tiling.cut(frames.images)})
        _, height, width, _ = frames.images.shape
        scale = np.array([frames.source_width / width, frames.source_height / height] * 2, dtype=np.float32)
        wanted = np.array([COCO_LABELS.index(label) for label in self.wanted])
        found: list[Detections] = []
        for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"], strict=True):
            kept = np.isin(labels, wanted)
            found.append(
                select(
                    boxes[kept],
                    scores[kept],
                    labels[kept],
                    score_threshold=self.score_threshold,
                    iou_threshold=self.iou_threshold,
                )
            )
        tiles = self.tiling.per_side**2
        return [
            _scaled(self.tiling.merge(found[start : start + tiles], iou_threshold=self.iou_threshold), scale)
            for start in range(0, len(found), tiles)
        ]


def frames_at(frames: Frames, every: int) -> Frames:
    """The first frame and every `every`-th after it."""
    return replace(frames, images=frames.images[::every], times_seconds=frames.times_seconds[::every])


def _scaled(found: Detections, scale: NDArray[np.float32]) -> Detections:
    return Detections(found.boxes * scale, found.scores, found.labels)
