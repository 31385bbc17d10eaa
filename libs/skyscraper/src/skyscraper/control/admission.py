"""Which streams a pool can take at all: their cheapest configurations must fit (paper section 2.2's guarantee)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Candidate:
    """A stream that wants to be in the pool: the cores its cheapest configuration takes, uncertainty included."""

    stream_id: str
    floor_cores: float
    weight: float


@dataclass(frozen=True)
class Admission:
    """Who is in, by stream with its floor in cores, and who is not, with the arithmetic."""

    admitted: dict[str, float]
    refused: dict[str, str]


def admit(candidates: Sequence[Candidate], *, cores: float) -> Admission:
    """Which streams the pool takes: the heaviest first, of equal weight the oldest (`candidates` come in that order).

    One that does not fit beside those before it is refused, and lighter or newer ones that fit still get in: so the
    lightest and newest are the first to go, and no core stands idle for a matter of principle.
    """
    order = sorted(range(len(candidates)), key=lambda index: (-candidates[index].weight, index))
    admitted: dict[str, float] = {}
    refused: dict[str, str] = {}
    # Rounding errors of a sum must not refuse a stream that fits exactly.
    most = cores * (1 + 1e-9)
    for index in order:
        one = candidates[index]
        taken = sum(admitted.values())
        if taken + one.floor_cores <= most:
            admitted[one.stream_id] = one.floor_cores
        else:
            refused[one.stream_id] = (
                f"stream {one.stream_id} (weight {one.weight:g}) needs {one.floor_cores:.3g} cores at its cheapest; "
                f"{len(admitted)} streams of more weight or longer standing take {taken:.3g} of the pool's {cores:g}: "
                f"add {taken + one.floor_cores - cores:.3g} cores, or take streams away"
            )
    return Admission(admitted, refused)
