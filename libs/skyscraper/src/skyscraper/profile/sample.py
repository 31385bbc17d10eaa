"""Which segments to search knobs on: few, and as different as can be (paper section 3.1, supplement A.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def diverse(vectors: Floats, count: int) -> list[int]:
    """Indices of `count` rows of [T,D], each as far as possible from those chosen before it (supplement A.1).

    The paper's vectors are the qualities of the cheapest and of the dearest configuration, and its first segment is the
    one of the smallest norm. Columns are scaled to their own range, so that none counts for more by its unit.
    """
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    scaled = (vectors - low) / np.where(high > low, high - low, 1.0)
    chosen = [int(np.argmin(np.linalg.norm(scaled, axis=1)))]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(count, len(vectors)):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
