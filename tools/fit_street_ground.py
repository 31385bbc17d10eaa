"""Learn the street camera's ground from the people cut out of its clip: the numbers in covid/settings.py.

    uv run python tools/fit_street_ground.py

Nothing but their pixels goes in. People are taken to be 1.7 m tall: how tall they look by row gives the horizon and
the camera's height. They are taken to walk equally fast to the side and away: that gives the focal length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skyscraper.media.street.sprites import Sprite, load_material
from skyscraper_pipelines.covid.ground import GroundPlane

Floats = NDArray[np.float64]

PERSON_METRES = 1.7
CENTRE = (384.0, 288.0)
# The clip's true frame rate, whatever its header says.
FRAMES_PER_SECOND = 7.0
_OPAQUE = 128
# Speed is measured over two seconds: a step sways the box.
_SPAN_FRAMES = 14
_ROUNDS = 30


def feet_and_heights(sprite: Sprite) -> tuple[Floats, Floats]:
    """Points [n, 2] and pixels [n]."""
    feet, heights = [], []
    for (left, top, _, _), picture in zip(sprite.boxes, sprite.pictures, strict=True):
        opaque = picture[..., 3] >= _OPAQUE
        rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
        feet.append((left + (columns[0] + columns[-1] + 1) / 2, top + rows[-1] + 1))
        heights.append(rows[-1] + 1 - rows[0])
    return np.array(feet, dtype=np.float64), np.array(heights, dtype=np.float64)


def horizon(rows: Floats, heights: Floats) -> tuple[float, float]:
    """The line of heights by row with least absolute error: its slope, and the row at which height is nothing."""
    inputs, weights = np.column_stack([rows, np.ones(len(rows))]), np.ones(len(rows))
    for _ in range(_ROUNDS):
        slope, offset = np.linalg.lstsq(inputs * weights[:, None], heights * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(heights - inputs @ [slope, offset]), 1))
    return float(slope), float(-offset / slope)


def speeds(plane: GroundPlane, walks: list[Floats]) -> tuple[float, float]:
    """Median metres per second of those who walk rather to the side, and rather away or near."""
    aside: list[float] = []
    ahead: list[float] = []
    for feet in walks:
        places = plane.positions(feet)
        steps = (places[_SPAN_FRAMES:] - places[:-_SPAN_FRAMES])[:: _SPAN_FRAMES // 2]
        for x, y in steps * FRAMES_PER_SECOND / _SPAN_FRAMES:
            (aside if abs(x) > abs(y) else ahead).append(float(np.hypot(x, y)))
    return float(np.median(aside)), float(np.median(ahead))


def main() -> None:
    found = [feet_and_heights(sprite) for sprite in load_material("people").sprites]
    feet, heights = (np.concatenate([one[part] for one in found]) for part in (0, 1))
    slope, row = horizon(feet[:, 1], heights)
    camera = PERSON_METRES / slope
    print(f"horizon at row {row:.0f}, camera {camera:.2f} m above the ground")
    for focal in range(500, 1501, 50):
        plane = GroundPlane.from_camera(height_metres=camera, horizon_row=row, focal_pixels=focal, centre=CENTRE)
        aside, ahead = speeds(plane, [one[0] for one in found])
        print(f"focal length {focal} pixels: {aside:.2f} m/s aside, {ahead:.2f} m/s ahead")


if __name__ == "__main__":
    main()
