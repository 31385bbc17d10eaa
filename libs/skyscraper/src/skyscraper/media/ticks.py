"""The clock of segments: 90 kHz, MPEG's own, so that a transport stream carries our timestamps without rounding."""

from __future__ import annotations

from fractions import Fraction

TICKS_PER_SECOND = 90_000
TICK = Fraction(1, TICKS_PER_SECOND)


def to_ticks(timestamp: int, time_base: Fraction) -> int:
    """`timestamp` in units of `time_base` seconds, as the nearest tick."""
    return round(timestamp * time_base * TICKS_PER_SECOND)


def to_seconds(ticks: int) -> float:
    return ticks / TICKS_PER_SECOND
