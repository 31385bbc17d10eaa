"""Step two of four: bring the rows of an expert together, and drop what does not fit its capacity.

Assignments are numbered sample-major, then by slot: assignment `b * k + j` is the j-th choice of row b. An expert takes
them in that order, so that the same batch always drops the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# alpha often comes from a count (needed_alpha): the division there must not cost a row or add one here.
CAPACITY_ROUNDING = 1e-6


@dataclass(frozen=True)
class Dispatch:
    """Where every assignment goes. B rows, k choices each, n experts, R places in the grouped matrix."""

    order: Tensor
    """[R] int64: the assignment at each place, expert by expert, in arrival order; -1 where a static place is empty."""
    position: Tensor
    """[B, k] int64: the place of an assignment; R where it was dropped."""
    counts: Tensor
    """[n] int64: what each expert was asked for, dropped ones included."""
    places: tuple[int, ...]
    """n numbers with the sum R: the places of each expert."""
    dropped: int
    """Assignments that found no place."""

    @property
    def k(self) -> int:
        return int(self.position.shape[1])

    @property
    def rows(self) -> Tensor:
        """[R] int64: the row of the batch at each place; an empty place shows row 0, and nothing reads its result."""
        order = self.order.clamp(min=0)
        return order if self.k == 1 else order // self.k

    def scale(self, weights: Tensor) -> Tensor:
        """[R]: the mixing weight (of [B, k]) at each place; zero at an empty one."""
        chosen = weights.reshape(-1).index_select(0, self.order.clamp(min=0))
        return chosen * (self.order >= 0)


def capacities(alpha: Sequence[float] | float | None, *, n: int, k: int, batch: int) -> tuple[int, ...] | None:
    """The most rows each of n experts takes: `ceil(alpha_e * k / n * batch)`; None for no limit."""
    if alpha is None:
        return None
    factors = [float(alpha)] * n if isinstance(alpha, int | float) else [float(one) for one in alpha]
    return tuple(math.ceil(factor * k / n * batch - CAPACITY_ROUNDING) for factor in factors)


def shared_out(alphas: Sequence[float], capacity: float, *, active: int) -> tuple[float, ...]:
    """One factor for each of n experts, in the proportions of `alphas`, of which the first `active` take part.

    `capacity` is what each of them takes on average, as a factor of its fair share of the rows.
    """
    shares = [float(one) for one in alphas[:active]]
    total = sum(shares)
    if total <= 0:
        shares, total = [1.0] * active, float(active)
    return (*(share / total * capacity * len(alphas) for share in shares), *[0.0] * (len(alphas) - active))


def needed_alpha(counts: Tensor, *, k: int, batch: int) -> Tensor:
    """[n] float64: the smallest local capacity factors with which nothing is dropped; their maximum is the global."""
    n = counts.shape[0]
    return counts.double() * n / (k * batch)


def group(experts: Tensor, n: int, limits: Sequence[int] | None, *, static: bool = False) -> Dispatch:
    """Sort the assignments by expert. `experts` is [B, k] int64 in 0..n-1; `limits` as `capacities` returns them.

    `static` gives every expert exactly its limit's places, filled or not: the shapes then depend on the plan alone.
    """
    flat = experts.reshape(-1)
    counts = torch.bincount(flat, minlength=n)
    wanted = counts.tolist()
    kept = wanted if limits is None else list(map(min, wanted, limits))
    places = list(limits) if static and limits is not None else kept
    order = torch.sort(flat, stable=True).indices
    if kept != wanted or places != kept:
        order = _fit(order, wanted, kept, places)
    total = sum(places)
    filled = (order >= 0).nonzero().squeeze(1) if places != kept else torch.arange(total, device=flat.device)
    position = torch.full_like(flat, total)
    position[order[filled]] = filled
    return Dispatch(order, position.view(experts.shape), counts, tuple(places), sum(wanted) - sum(kept))


def _fit(order: Tensor, wanted: Sequence[int], kept: Sequence[int], places: Sequence[int]) -> Tensor:
    """[R]: of each expert's part of `order` the first `kept`, followed by -1 up to its `places`."""
    empty = order.new_full((max(places, default=0),), -1)
    parts: list[Tensor] = []
    for mine, take, room in zip(order.split(list(wanted)), kept, places, strict=True):
        parts += [mine[:take], empty[: room - take]]
    return torch.cat(parts)


def group_by(
    x: Tensor, experts: Tensor, n: int, alpha: Sequence[float] | float | None
) -> tuple[list[Tensor], Dispatch]:
    """The paper's operator: each expert's rows of `x` [B, ...] as n tensors [kept_e, ...], and where they came from.

    Differentiable in `x`; a dropped assignment has no part in the gradient.
    """
    batch, k = experts.shape
    dispatch = group(experts, n, capacities(alpha, n=n, k=k, batch=batch))
    return list(x.index_select(0, dispatch.rows).split(list(dispatch.places))), dispatch
