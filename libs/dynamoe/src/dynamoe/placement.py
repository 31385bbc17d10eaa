"""Which process computes what, where the experts of a layer lie in several: pure functions of counts.

The experts are dealt out in blocks; the process that has an expert's weights, and its optimizer state, is its *home*.
A *hot* expert (more than one replica) is computed by every process for its own rows, with weights that its home sends
along; rows for all others travel to their home. Sending weights instead of rows is the shadowing of He et al.
(FasterMoE, PPoPP 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dynamoe.errors import SettingError


def home_of(expert: int, *, per_process: int) -> int:
    """The process that has an expert's weights."""
    return expert // per_process


def hot_experts(replicas: Sequence[int] | None, *, processes: int) -> tuple[int, ...]:
    """Experts that every process computes for itself. Raises SettingError for a number in between."""
    wrong = sorted({one for one in replicas or () if one not in (1, processes)})
    if wrong:
        raise SettingError(f"replicas holds {wrong[0]}: an expert is in 1 or in all {processes} processes")
    return tuple(expert for expert, count in enumerate(replicas or ()) if count > 1)


@dataclass(frozen=True)
class Parting:
    """Where the rows of one process go. Its grouped matrix [R, d] holds the rows of expert after expert."""

    away: Tensor
    """[A] int64: places of rows that travel, by the home of their expert, then by expert; those whose home this process
    is are among them."""
    here: Tensor
    """[H] int64: places of rows of hot experts."""
    sent: tuple[tuple[int, ...], ...]
    """[P][n / P]: rows for each process's own experts."""
    hot_places: tuple[int, ...]
    """Rows of each hot expert."""

    @property
    def send_sizes(self) -> list[int]:
        """Rows for each process."""
        return [sum(one) for one in self.sent]


def part(places: Sequence[int], hot: Sequence[int], *, processes: int) -> Parting:
    """`places`: rows of each of n experts, of which `hot` stay."""
    per_process = len(places) // processes
    starts = [0, *accumulate(places)]
    stays = set(hot)
    # Homes are blocks of experts, so the order of experts is that of homes.
    away = [range(starts[one], starts[one + 1]) for one in range(len(places)) if one not in stays]
    here = [range(starts[one], starts[one + 1]) for one in sorted(stays)]
    travelling = [0 if one in stays else count for one, count in enumerate(places)]
    return Parting(
        _indices(away),
        _indices(here),
        tuple(tuple(travelling[first : first + per_process]) for first in range(0, len(places), per_process)),
        tuple(places[one] for one in sorted(stays)),
    )


def _indices(ranges: Sequence[range]) -> Tensor:
    parts = [torch.arange(one.start, one.stop) for one in ranges if len(one)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
