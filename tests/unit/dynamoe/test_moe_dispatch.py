"""group_by: who takes which row, and what is dropped, against the plain reference."""

from __future__ import annotations

import torch
from dynamoe.dispatch import capacities, group, group_by, needed_alpha
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_reference import kept


@st.composite
def _assignments(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    n = draw(st.integers(1, 7))
    k = draw(st.integers(1, n))
    rows = draw(st.lists(st.permutations(range(n)).map(lambda order: list(order)[:k]), min_size=1, max_size=24))
    return rows, n


_alphas = st.one_of(st.none(), st.floats(0, 4), st.just("local"))


@given(_assignments(), _alphas, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_every_expert_takes_its_first_rows_in_arrival_order(case, alpha, random) -> None:  # type: ignore[no-untyped-def]
    assign, n = case
    factors = [random.uniform(0, 3) for _ in range(n)] if alpha == "local" else alpha
    wanted = kept(assign, n, None if factors is None else factors if isinstance(factors, list) else [factors] * n)
    x = torch.arange(len(assign), dtype=torch.float64).unsqueeze(1)
    parts, dispatch = group_by(x, torch.tensor(assign), n, factors)
    assert [part.squeeze(1).tolist() for part in parts] == [[row for row, _ in wanted[expert]] for expert in range(n)]
    k = len(assign[0])
    taken = {row * k + slot for pairs in wanted.values() for row, slot in pairs}
    assert dispatch.dropped == len(assign) * k - len(taken)
    places = dispatch.position.reshape(-1).tolist()
    assert {index for index, place in enumerate(places) if place < len(dispatch.order)} == taken
    assert all(dispatch.order[places[index]] == index for index in taken)


@given(_assignments())
@settings(max_examples=40, deadline=None)
def test_the_needed_alpha_drops_nothing_and_the_next_smaller_capacity_does(case) -> None:  # type: ignore[no-untyped-def]
    assign, n = case
    experts = torch.tensor(assign)
    batch, k = experts.shape
    needed = needed_alpha(torch.bincount(experts.reshape(-1), minlength=n), k=k, batch=batch)
    limits = capacities(needed.tolist(), n=n, k=k, batch=batch)
    assert limits is not None
    assert group(experts, n, limits).dropped == 0
    assert group(experts, n, capacities(float(needed.max()), n=n, k=k, batch=batch)).dropped == 0
    hottest = int(needed.argmax())
    assert group(experts, n, [limit - (expert == hottest) for expert, limit in enumerate(limits)]).dropped == 1


@given(_assignments(), st.floats(0.1, 3))
@settings(max_examples=40, deadline=None)
def test_static_places_hold_the_same_rows_in_shapes_that_the_batch_does_not_change(case, alpha) -> None:  # type: ignore[no-untyped-def]
    assign, n = case
    experts = torch.tensor(assign)
    batch, k = experts.shape
    limits = capacities(alpha, n=n, k=k, batch=batch)
    assert limits is not None
    exact, static = group(experts, n, limits), group(experts, n, limits, static=True)
    assert static.places == tuple(limits)
    assert static.order[static.order >= 0].tolist() == exact.order.tolist()
    assert static.dropped == exact.dropped
    weights = torch.rand(batch, k)
    assert static.scale(weights)[static.order < 0].eq(0).all()


def test_a_dropped_row_has_no_gradient() -> None:
    x = torch.rand(4, 3, requires_grad=True)
    parts, dispatch = group_by(x, torch.zeros(4, 1, dtype=torch.int64), 2, 1.0)
    assert dispatch.dropped == 2
    torch.cat(parts).sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == [1, 1, 0, 0]
