"""What a segment will cost: the offline estimate, corrected by what segments really cost lately."""

from __future__ import annotations

from numba import njit

# Slow enough to ride out a segment's noise, quick enough to learn a wrong estimate within minutes.
_GAIN = 0.02


@njit(cache=True)
def recalibrated(scale: float, estimated: float, measured: float) -> float:  # pragma: no cover - compiled
    """The factor between real work and its offline estimate (core-seconds), after one more segment."""
    return scale + _GAIN * (measured / estimated - scale) if estimated > 0 else scale
