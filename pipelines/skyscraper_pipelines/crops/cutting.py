"""What the classifier is shown, and what it tells apart: shared by the pipeline and by the training."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# A detection is an object of the street or a mistake of the detector.
NOTHING, PERSON, VEHICLE = OBJECTS = ("nothing", "person", "vehicle")
LIGHTS = ("night", "dusk", "day")
# Class `i` is object `i // 3` in light `i % 3`.
CLASSES = tuple(f"{thing}/{light}" for thing in OBJECTS for light in LIGHTS)
# A person of the street camera is 20 x 45 pixels where the detector sees 384 x 288 of the street: a larger picture
# would show no more.
CROP_PIXELS = 32
# Around a box, as a share of its sides: what an object stands before tells it from a part of the street.
_MARGIN = 0.15


def cut(image: NDArray[np.uint8], boxes: NDArray[np.floating]) -> NDArray[np.uint8]:
    """uint8 [m, 32, 32, 3] from an image [height, width, 3] and boxes [m, 4] (x_min, y_min, x_max, y_max) in it.

    Sides are scaled on their own: a crop does not tell how tall its object is.
    """
    height, width, _ = image.shape
    crops = np.zeros((len(boxes), CROP_PIXELS, CROP_PIXELS, 3), dtype=np.uint8)
    for crop, (x_min, y_min, x_max, y_max) in zip(crops, boxes.tolist(), strict=True):
        margin_x, margin_y = (x_max - x_min) * _MARGIN, (y_max - y_min) * _MARGIN
        left = int(np.clip(x_min - margin_x, 0, width - 1))
        top = int(np.clip(y_min - margin_y, 0, height - 1))
        right = int(np.clip(np.ceil(x_max + margin_x), left + 1, width))
        bottom = int(np.clip(np.ceil(y_max + margin_y), top + 1, height))
        cv2.resize(image[top:bottom, left:right], (CROP_PIXELS, CROP_PIXELS), dst=crop, interpolation=cv2.INTER_AREA)
    return crops
