"""The clock of segments: 90 kHz, MPEG's own, so that a transport stream carries our timestamps without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

TICKS_PER_SECOND = 90_000
TICK = Fraction(1, TICKS_PER_SECOND)


def to_ticks(timestamp: int, time_base: Fraction) -> int:
    """`timestamp` in units of `time_base` seconds, as the nearest tick."""
    return round(timestamp * time_base * TICKS_PER_SECOND)


def covered(times: Sequence[float]) -> float:
    """What frames shown at `times` (of any unit, in any order) cover: up to the end of the last, which lasts as long as
    the frames do on average."""
    span = max(times) - min(times)
    return span * len(times) / (len(times) - 1) if len(times) > 1 else 0.0


def to_seconds(ticks: int) -> float:
    return ticks / TICKS_PER_SECOND
