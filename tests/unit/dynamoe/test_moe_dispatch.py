"""group_by: who takes which row, and what is dropped, against the plain reference."""

from __future__ import annotations

import torch
from dynamoe.dispatch import SHORTEST_BATCH, capacities, group, group_by, needed_alpha, padded
from dynamoe.kernels import blocks
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
    exact, static = group(experts, n, limits), group(experts, n, limits, room=lambda kept: limits)
    assert static.places == tuple(limits)
    assert static.order[static.order >= 0].tolist() == exact.order.tolist()
    assert static.dropped == exact.dropped
    weights = torch.rand(batch, k)
    assert static.scale(weights)[static.order < 0].eq(0).all()


_COUNTS = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 200)), max_size=80)


@given(_COUNTS)
@settings(max_examples=200, deadline=None)
def test_padding_keeps_every_row_and_adds_at_most_sixteen_places_per_expert(kept: list[int]) -> None:
    places = padded(kept)
    assert all(room >= count for room, count in zip(places, kept, strict=True))
    assert all(room == 0 for room, count in zip(places, kept, strict=True) if count == 0)
    assert sum(places) - sum(kept) <= 16 * len(kept)


def test_many_neighbours_with_few_rows_get_equal_places_and_hot_or_few_experts_their_own() -> None:
    assert padded([5, 9, 7, 8, 3, 12, 6, 4, 900, 3, 5]) == [12] * 8 + [900, 3, 5]


@given(_COUNTS, st.integers(1, 300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_blocks_hold_every_place_once_and_are_no_larger_than_asked(
    places: list[int], most_rows: int, mixed: bool
) -> None:
    made = list(blocks(places, most_rows, mixed=mixed))
    assert [one for block in made for one in range(block.start, block.end)] == list(range(sum(places)))
    inside = [expert for block in made for expert in block.experts]
    assert inside == sorted(set(inside))
    assert {expert for expert, count in enumerate(places) if count} <= set(inside)
    for block in made:
        assert block.size == sum(block.places)
        assert len(block.experts) == 1 or block.size <= most_rows
        assert mixed or len(block.experts) == 1 or block.equal


def test_equal_neighbours_are_one_block_and_unequal_ones_another() -> None:
    made = list(blocks([3, 4] + [6] * SHORTEST_BATCH + [0, 2], 1000, mixed=True))
    assert [block.experts for block in made] == [range(2), range(2, 2 + SHORTEST_BATCH), range(3 + SHORTEST_BATCH, 12)]
    assert [block.equal for block in made] == [False, True, False]


def test_a_dropped_row_has_no_gradient() -> None:
    x = torch.rand(4, 3, requires_grad=True)
    parts, dispatch = group_by(x, torch.zeros(4, 1, dtype=torch.int64), 2, 1.0)
    assert dispatch.dropped == 2
    torch.cat(parts).sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == [1, 1, 0, 0]
