"""Which of several ways to compute the same is the fastest on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def least_seconds(ways: Sequence[Callable[[], object]], *, rounds: int) -> list[float]:
    """The shortest run of each, taking turns, so that a slow moment of the machine hits all of them."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, seconds, strict=True):
            started = time.perf_counter()
            way()
            taken.append(time.perf_counter() - started)
    return [min(taken) for taken in seconds]
