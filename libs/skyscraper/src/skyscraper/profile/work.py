"""How much work a configuration takes, and how sure that is (paper section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The guard relies on the uncertainty; of a hundred segments, five may take more.
_QUANTILE = 0.95


@dataclass(frozen=True)
class WorkModel:
    """Work in proportion to a segment's length: rate [K] core-seconds per second of video; uncertainty [K], relative:
    of 100 segments, 95 take at most (1 + uncertainty) times their estimate."""

    rate: Floats
    uncertainty: Floats

    def estimate(self, seconds: float) -> Floats:
        """[K] core-seconds of a segment of that length."""
        return self.rate * seconds


def fit_work(core_seconds: Floats, seconds: Floats) -> WorkModel:
    """From core_seconds [T,K] (CPU time) of segments of the given lengths [T]: the line through zero, least squares."""
    rate = (core_seconds * seconds[:, None]).sum(axis=0) / (seconds**2).sum()
    over = core_seconds / np.maximum(rate * seconds[:, None], 1e-12) - 1
    return WorkModel(rate, np.maximum(np.quantile(over, _QUANTILE, axis=0), 0.0))
