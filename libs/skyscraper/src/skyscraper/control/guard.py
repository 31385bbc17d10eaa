"""The last word on every choice: no segment may wait in the buffer longer than the limit.

Segments are worked off in order of arrival. A choice of work w at time t ends at t + w / cores, and the next segment,
which arrived (or arrives) at a, must start by a + limit. Because the cheapest configuration is faster than
the stream (admission), a backlog that is within the limit for the next segment stays within it at the cheapest.
"""

from __future__ import annotations

from collections.abc import Sequence


def slack_core_seconds(
    now_seconds: float, next_arrival_seconds: float, limit_seconds: float, cores: float, uncertainty: float
) -> float:
    """The largest estimated work that may be chosen now. Negative: the cheapest, and the backlog is over the limit.

    `uncertainty`: real work is at most (1 + uncertainty) times its estimate.
    """
    return (next_arrival_seconds + limit_seconds - now_seconds) * cores / (1.0 + uncertainty)


def allowed(work_core_seconds: Sequence[float], slack: float) -> list[int]:
    """Configurations that the guard allows; the cheapest always is, as the floor."""
    return [index for index, work in enumerate(work_core_seconds) if index == 0 or work <= slack]
