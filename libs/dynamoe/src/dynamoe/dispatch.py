"""Step two of four: bring the rows of an expert together, and drop what does not fit its capacity.

Assignments are numbered sample-major, then by slot: assignment `b * k + j` is the j-th choice of row b. An expert takes
them in that order, so that the same batch always drops the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# alpha often comes from a count (needed_alpha): the division there must not cost a row or add one here.
CAPACITY_ROUNDING = 1e-6
# Empty places per expert, on average, that a batch of products may have: computing them takes about half of what one
# call saves over a product for each (bfloat16 on two cores with AMX: 0.3 ms, or 38 rows, per expert and step).
_MOST_PADDING = 16
# A batch of fewer neighbours saves less than it costs to go through them apart from the others.
SHORTEST_BATCH = 8


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


def group(
    experts: Tensor,
    n: int,
    limits: Sequence[int] | None,
    *,
    room: Callable[[Sequence[int]], Sequence[int]] | None = None,
) -> Dispatch:
    """Sort the assignments by expert. `experts` is [B, k] int64 in 0..n-1; `limits` as `capacities` returns them.

    `room` gives every expert its places from what the experts keep, at least as many; without it, exactly as many.
    """
    flat = experts.reshape(-1)
    counts = torch.bincount(flat, minlength=n)
    wanted = counts.tolist()
    kept = wanted if limits is None else list(map(min, wanted, limits))
    places = kept if room is None else list(room(kept))
    ordered, order = torch.sort(flat, stable=True)
    total, dropped = sum(places), sum(wanted) - sum(kept)
    place = torch.arange(len(flat), device=flat.device)
    filled = order
    if places != wanted:
        starts, rooms, most = (torch.tensor(one, device=flat.device) for one in (wanted, places, kept))
        arrival = place - (starts.cumsum(0) - starts)[ordered]
        place = (rooms.cumsum(0) - rooms)[ordered] + arrival
        # Dropped assignments share one place more, which is then cut off.
        place = torch.where(arrival < most[ordered], place, total)
        filled = order.new_full((total + 1,), -1).scatter_(0, place, order)[:total]
    position = torch.empty_like(flat).scatter_(0, order, place)
    return Dispatch(filled, position.view(experts.shape), counts, tuple(places), dropped)


def padded(kept: Sequence[int]) -> list[int]:
    """Places for experts that keep so many rows each: neighbours with few rows get as many as the busiest of them.

    Their products can then run as one batch. A hot expert, or one without rows, ends a run.
    """
    places = list(kept)
    start = busiest = rows = 0
    for expert, count in enumerate([*kept, 0]):
        size = expert - start
        grown = max(busiest, count)
        if count and grown * (size + 1) <= rows + count + _MOST_PADDING * (size + 1):
            busiest, rows = grown, rows + count
            continue
        if size >= SHORTEST_BATCH:
            places[start:expert] = [busiest] * size
        # The expert that did not fit begins the next run.
        start, busiest, rows = (expert, count, count) if count else (expert + 1, 0, 0)
    return places


def group_by(
    x: Tensor, experts: Tensor, n: int, alpha: Sequence[float] | float | None
) -> tuple[list[Tensor], Dispatch]:
    """The paper's operator: each expert's rows of `x` [B, ...] as n tensors [kept_e, ...], and where they came from.

    Differentiable in `x`; a dropped assignment has no part in the gradient.
    """
    batch, k = experts.shape
    dispatch = group(experts, n, capacities(alpha, n=n, k=k, batch=batch))
    return list(x.index_select(0, dispatch.rows).split(list(dispatch.places))), dispatch
