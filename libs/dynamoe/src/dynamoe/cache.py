"""The assignments of the previous epoch, by sample id.

The paper's cache needs a fixed order of the samples; this one does not: a batch brings the ids of its rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynamoe.errors import SettingError


class AssignmentCache:
    """k experts and their probabilities for each of `samples` ids, 0 to samples - 1: 12 k bytes per sample,
    on the device that assignments come from."""

    def __init__(self, samples: int, k: int) -> None:
        if samples < 1:
            raise SettingError(f"cache_samples is {samples}: how many samples an epoch has")
        # -1: not seen yet.
        self._experts = torch.full((samples, k), -1, dtype=torch.int64)
        self._probabilities = torch.zeros(samples, k)

    def lookup(self, ids: Tensor) -> tuple[Tensor, Tensor] | None:
        """Experts [B, k] and probabilities [B, k] of the last time; None where one of the ids is new."""
        ids = ids.to(self._experts.device)
        experts = self._experts[ids]
        return None if bool((experts < 0).any()) else (experts, self._probabilities[ids])

    def store(self, ids: Tensor, experts: Tensor, probabilities: Tensor) -> float:
        """Take in this epoch's choice. Returns the share of rows whose set of experts is that of the last time."""
        self._experts, self._probabilities = self._experts.to(experts.device), self._probabilities.to(experts.device)
        ids = ids.to(experts.device)
        same = same_sets(self._experts[ids], experts)
        self._experts[ids] = experts
        self._probabilities[ids] = probabilities.detach().to(self._probabilities.dtype)
        return float(same.double().mean())


def same_sets(left: Tensor, right: Tensor) -> Tensor:
    """[B] bool: whether two rows of [B, k] hold the same experts, in any order."""
    return (left.sort(dim=1).values == right.sort(dim=1).values).all(dim=1)
