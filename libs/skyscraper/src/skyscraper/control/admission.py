"""Which streams a pool can take at all: their cheapest configurations must fit (paper section 2.2's guarantee)."""

from __future__ import annotations

from collections.abc import Mapping

from skyscraper.control.errors import Infeasible


def require_admissible(floor_cores: Mapping[str, float], *, cores: float, uncertainty: float = 0.0) -> float:
    """The share of the pool that the cheapest configurations take.

    floor_cores: by stream, core-seconds per second of video at the cheapest configuration. Raises Infeasible with the
    arithmetic.
    """
    if cores <= 0:
        raise Infeasible(f"the pool has {cores:g} cores; it needs more than 0")
    total = sum(floor_cores.values()) * (1 + uncertainty)
    if total <= cores:
        return total / cores
    dearest = sorted(floor_cores.items(), key=lambda item: -item[1])[:3]
    shown = ", ".join(f"{name} {value:.3g}" for name, value in dearest)
    raise Infeasible(
        f"{len(floor_cores)} {'stream does' if len(floor_cores) == 1 else 'streams do'} not fit: the cheapest "
        f"configurations alone take "
        f"{total / (1 + uncertainty):.4g} cores × {1 + uncertainty:.3g} (uncertainty) = {total:.4g}, and the pool has "
        f"{cores:g}; the largest are {shown}. Add {total - cores:.3g} cores, or take streams away"
    )
