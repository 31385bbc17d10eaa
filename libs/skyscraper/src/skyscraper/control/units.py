"""The one place where resources are converted (paper section 4.1's budgets are per segment, users' are per day)."""

from __future__ import annotations

SECONDS_PER_DAY = 86_400.0


def core_seconds_per_segment(cores: float, segment_seconds: float) -> float:
    """Work a pool can do while one segment arrives."""
    return cores * segment_seconds


def usd_per_segment(usd_per_day: float, segment_seconds: float) -> float:
    return usd_per_day * segment_seconds / SECONDS_PER_DAY


def buffer_seconds(buffer_bytes: float, bytes_per_second: float) -> float:
    """How much video a buffer holds at the given rate; infinite for a silent stream."""
    return buffer_bytes / bytes_per_second if bytes_per_second > 0 else float("inf")
