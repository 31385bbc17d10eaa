"""Curves and heat in text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def curve(values: NDArray[np.float64], height: int, top: float | None = None) -> list[str]:
    """A filled curve: `height` lines of one character per value, the highest first. Never negative."""
    most = float(values.max(initial=0.0)) if top is None else top
    if most <= 0:
        return [" " * len(values)] * (height - 1) + ["▁" * len(values)]
    # In eighths of a line; what is not 0 is seen.
    filled = np.maximum(np.round(np.clip(values / most, 0, 1) * height * 8), (values > 0).astype(float)).astype(int)
    return [
        "".join(_EIGHTHS[min(8, max(0, int(one) - 8 * line))] for one in filled) for line in reversed(range(height))
    ]


def heat(rows: Sequence[NDArray[np.float64]]) -> list[str]:
    """One line per row, all on the same scale."""
    most = max((float(row.max(initial=0.0)) for row in rows), default=0.0)
    return [curve(row, 1, most)[0] if most > 0 else "▁" * len(row) for row in rows]
