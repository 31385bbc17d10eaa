"""From pixels to metres: a homography between the picture and a flat ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skyscraper.errors import ConfigError

Floats = NDArray[np.float64]
Points = Sequence[tuple[float, float]]

# A matrix whose smallest singular value is this small a part of its largest, once the pictures' scales are taken out,
# squeezes the ground into a line.
_SINGULAR = 1e-9


@dataclass(frozen=True, eq=False)
class GroundPlane:
    """`matrix`: float64 [3, 3], takes (x, y, 1) in pixels of the source video to metres on the ground times w.

    w is positive in front of the camera; a point at or above the horizon has none.
    """

    matrix: Floats

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ConfigError(f"a homography is 3 x 3 finite numbers; this one is {np.array(matrix).tolist()!r:.200}")
        # Rows and columns have units of their own (pixels, metres): without scaling, a good matrix looks singular.
        scaled = matrix / np.maximum(np.abs(matrix).max(axis=0, keepdims=True), 1e-300)
        scaled = scaled / np.maximum(np.abs(scaled).max(axis=1, keepdims=True), 1e-300)
        singular = np.linalg.svd(scaled, compute_uv=False)
        if singular[-1] <= _SINGULAR * singular[0]:
            raise ConfigError(
                "the homography is singular: it takes the picture to a line. Give four or more points on the ground, "
                "no three of them on one line"
            )

    @classmethod
    def from_points(cls, pixels: Points, metres: Points) -> GroundPlane:
        """Through four or more points measured on the ground (least squares). Raises ConfigError."""
        if len(pixels) != len(metres) or len(pixels) < 4:
            raise ConfigError(
                f"{len(pixels)} points in pixels and {len(metres)} in metres: a homography needs four or more of both"
            )
        source, target = (np.asarray(points, dtype=np.float64) for points in (pixels, metres))
        matrix, _ = cv2.findHomography(source, target)
        if matrix is None:
            raise ConfigError(
                "no homography fits the points: three or more of them lie on one line; measure points at the corners "
                "of the ground that is seen"
            )
        weights = np.column_stack([source, np.ones(len(source))]) @ matrix[2]
        return cls(np.asarray(-matrix if weights.max() < 0 else matrix, dtype=np.float64))

    @classmethod
    def from_camera(
        cls, *, height_metres: float, horizon_row: float, focal_pixels: float, centre: tuple[float, float]
    ) -> GroundPlane:
        """Of a pinhole camera that does not roll: x to the right of it, y ahead of it."""
        pitch = math.atan2(centre[1] - horizon_row, focal_pixels)
        to_ray = np.array(
            [
                [1 / focal_pixels, 0, -centre[0] / focal_pixels],
                [0, 1 / focal_pixels, -centre[1] / focal_pixels],
                [0, 0, 1],
            ]
        )
        sine, cosine = math.sin(pitch), math.cos(pitch)
        # A ray's steps aside, ahead and down; it meets the ground where it has come down by the camera's height.
        turned = np.array(
            [[height_metres, 0, 0], [0, -height_metres * sine, height_metres * cosine], [0, cosine, sine]]
        )
        return cls(turned @ to_ray)

    def positions(self, points: Floats) -> Floats:
        """Metres [m, 2] of points [m, 2] in pixels; NaN at or above the horizon."""
        moved = np.column_stack([points, np.ones(len(points))]) @ self.matrix.T
        weights = np.where(moved[:, 2:] > 0, moved[:, 2:], np.nan)
        places: Floats = moved[:, :2] / weights
        return places


def nearest_metres(positions: Floats) -> Floats:
    """[m]: how far the nearest other of positions [m, 2] is; infinite where there is no other, or no position."""
    away = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(away, np.inf)
    away[np.isnan(away)] = np.inf
    nearest: Floats = away.min(axis=1, initial=np.inf)
    return nearest
