"""How much boxes overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def intersection_over_union(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """[len(a), len(b)], 0 to 1, for boxes [m, 4] as x_min, y_min, x_max, y_max; boxes without area overlap nothing."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    return _ratio(sides[..., 0] * sides[..., 1], _area(a)[:, None], _area(b)[None, :])


def paired_intersection_over_union(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """[m]: of each box of `a` [m, 4] with the one at its place in `b` [m, 4]."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    return _ratio(sides[:, 0] * sides[:, 1], _area(a), _area(b))


def _ratio(
    shared: NDArray[np.float32], area_a: NDArray[np.float32], area_b: NDArray[np.float32]
) -> NDArray[np.float32]:
    union = area_a + area_b - shared
    overlap: NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    area: NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return area
