"""Tiling: a frame cut into squares that the detector sees one by one, so that far objects are larger to it.

A grid of 2x2 costs four times one look at the whole frame. Neighbouring tiles overlap, and what was found in them is
joined over their seams: two boxes are one object if they agree within the strip that both tiles saw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.errors import ConfigError
from skyscraper.models.detections import select
from skyscraper.models.overlap import paired_intersection_over_union
from skyscraper.pipeline.pipeline import Detections

# Of a tile's side. On the street camera a person is up to 0.28 of a tile high, so most are whole in some tile.
_OVERLAP = 0.3
# Boxes end this near to a tile's border where the border, not the object, ended them.
_BORDER_PIXELS = 2.0


@dataclass(frozen=True)
class Tiling:
    """`per_side` x `per_side` squares of `tile_size` pixels over one picture of `image_size` pixels square."""

    per_side: int
    tile_size: int

    def __post_init__(self) -> None:
        if self.per_side < 1 or self.tile_size < 1:
            raise ConfigError(f"tiles {self.per_side}x{self.per_side} of {self.tile_size} pixels: both are 1 or more")

    @classmethod
    def parse(cls, grid: str, tile_size: int) -> Tiling:
        """From `1x1`, `2x2`, ... Raises ConfigError."""
        match = re.fullmatch(r"(\d+)x\1", grid)
        if match is None:
            raise ConfigError(f"tiles {grid!r} are no grid of as many rows as columns, such as 2x2")
        return cls(int(match.group(1)), tile_size)

    @property
    def image_size(self) -> int:
        """Side of the picture that the tiles cover together."""
        return (self.per_side - 1) * self._step + self.tile_size

    @property
    def _step(self) -> int:
        return self.tile_size - (round(self.tile_size * _OVERLAP) if self.per_side > 1 else 0)

    def areas(self) -> NDArray[np.float32]:
        """The tiles in the picture, row by row: float32 [tiles, 4] as x_min, y_min, x_max, y_max."""
        starts = [index * self._step for index in range(self.per_side)]
        size = self.tile_size
        return np.array([(x, y, x + size, y + size) for y in starts for x in starts], dtype=np.float32)

    def cut(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [n, image_size, image_size, 3] to [n * tiles, tile_size, tile_size, 3], picture by picture."""
        if self.per_side == 1:
            return images
        corners = self.areas()[:, :2].astype(int).tolist()
        size = self.tile_size
        parts = [images[:, y : y + size, x : x + size] for x, y in corners]
        return np.stack(parts, axis=1).reshape(-1, size, size, 3)

    def merge(self, found: Sequence[Detections], *, iou_threshold: float) -> Detections:
        """One picture's detections from those of its tiles, whose boxes are in the pixels of the tile. Best first.

        An object that several tiles saw keeps the box of the surest tile that saw it whole; if all saw a part, the
        parts are joined. Scores are the best of an object's.
        """
        if self.per_side == 1:
            (one,) = found
            return one
        areas = self.areas()
        tile = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
        boxes = np.concatenate([one.boxes.reshape(-1, 4) for one in found]) + areas[tile][:, [0, 1, 0, 1]]
        scores = np.concatenate([one.scores for one in found])
        labels = np.concatenate([one.labels for one in found])
        same = (_agreement(boxes, areas[tile]) >= iou_threshold) & (labels[:, None] == labels[None, :])
        same &= tile[:, None] != tile[None, :]
        whole = ~self._ended_by_border(boxes, areas[tile])
        groups: list[list[int]] = []
        for index in np.argsort(-scores, kind="stable").tolist():
            # A tile sees an object once, so a group holds one box of a tile.
            home = next(
                (one for one in groups if same[index, one].any() and not (tile[one] == tile[index]).any()), None
            )
            if home is None:
                groups.append([index])
            else:
                home.append(index)
        joined = np.array([_join(boxes[one], whole[one]) for one in groups], dtype=np.float32).reshape(-1, 4)
        first = np.array([one[0] for one in groups], dtype=np.intp)
        return select(joined, scores[first], labels[first], score_threshold=0.0, iou_threshold=iou_threshold)

    def _ended_by_border(self, boxes: NDArray[np.float32], areas: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether a box reaches a border of its tile that is not one of the picture. [m]"""
        low = (boxes[:, :2] <= areas[:, :2] + _BORDER_PIXELS) & (areas[:, :2] > 0)
        high = (boxes[:, 2:] >= areas[:, 2:] - _BORDER_PIXELS) & (areas[:, 2:] < self.image_size)
        return np.asarray((low | high).any(axis=1))


def _agreement(boxes: NDArray[np.float32], areas: NDArray[np.float32]) -> NDArray[np.float32]:
    """[m, m]: intersection over union of two boxes, both clipped to what both of their tiles saw."""
    count = len(boxes)
    low = np.maximum(areas[:, None, :2], areas[None, :, :2])
    high = np.maximum(low, np.minimum(areas[:, None, 2:], areas[None, :, 2:]))
    strip_low, strip_high = low.reshape(-1, 2), high.reshape(-1, 2)

    def clipped(pairs: NDArray[np.float32]) -> NDArray[np.float32]:
        corners = [np.clip(pairs[:, at : at + 2], strip_low, strip_high) for at in (0, 2)]
        return np.concatenate(corners, axis=1)

    mine, others = clipped(np.repeat(boxes, count, axis=0)), clipped(np.tile(boxes, (count, 1)))
    return paired_intersection_over_union(mine, others).reshape(count, count)


def _join(boxes: NDArray[np.float32], whole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """One box [4] for one object's boxes [m, 4], the surest first."""
    if whole.any():
        return np.asarray(boxes[int(np.argmax(whole))])
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
