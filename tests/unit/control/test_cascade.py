"""The cheapest burst pool is wanted first, and no work that waits is forgotten."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.cascade import PoolCapacity, cascade, is_short


def pool(name: str, price: int, most: int | None = 4, ready: int = 0, *, late: bool = False) -> PoolCapacity:
    return PoolCapacity(name, price, 8.0, most, ready, late)


def test_the_dearer_pool_is_left_alone_while_the_cheaper_one_has_room() -> None:
    assert cascade(32.0, [pool("dear", 2), pool("cheap", 1)]) == {"cheap": 32.0, "dear": 0.0}


def test_what_the_cheaper_pool_cannot_take_is_the_dearer_ones() -> None:
    assert cascade(40.0, [pool("dear", 2), pool("cheap", 1)]) == {"cheap": 32.0, "dear": 8.0}


def test_a_pool_without_a_limit_takes_all() -> None:
    assert cascade(1e6, [pool("cheap", 1, most=None), pool("dear", 2)]) == {"cheap": 1e6, "dear": 0.0}


def test_a_pool_that_gets_no_machines_stays_wanted_and_the_next_is_wanted_as_well() -> None:
    assert cascade(20.0, [pool("cheap", 1, ready=1, late=True), pool("dear", 2)]) == {"cheap": 20.0, "dear": 12.0}


def test_pools_of_one_price_are_filled_in_the_order_given() -> None:
    assert cascade(40.0, [pool("b", 1), pool("a", 1)]) == {"b": 32.0, "a": 8.0}


def test_less_than_a_machine_more_is_no_shortage() -> None:
    assert not is_short(23.9, pool("a", 1, ready=2))
    assert is_short(24.0, pool("a", 1, ready=2))
    assert is_short(0.1, pool("a", 1, ready=0))
    assert not is_short(0.0, pool("a", 1, ready=0))


CAPACITIES = st.lists(
    st.builds(
        PoolCapacity,
        name=st.uuids().map(str),
        nano_usd_per_core_second=st.integers(1, 5),
        core_seconds_per_machine=st.floats(0.5, 100),
        most_machines=st.none() | st.integers(1, 50),
        ready_machines=st.integers(0, 50),
        late=st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.name,
)


@given(waiting=st.floats(0, 1e5), pools=CAPACITIES)
def test_all_that_waits_is_somebodys_and_no_pool_is_asked_beyond_its_machines(
    waiting: float, pools: list[PoolCapacity]
) -> None:
    shares = cascade(waiting, pools)
    room = math.fsum(one.most_core_seconds for one in pools)
    assert math.fsum(shares.values()) >= min(waiting, room) * (1 - 1e-9)
    assert all(0 <= shares[one.name] <= one.most_core_seconds for one in pools)
    if not any(one.late for one in pools):
        assert math.isclose(math.fsum(shares.values()), min(waiting, room), rel_tol=1e-9)


@given(waiting=st.floats(0, 1e5), more=st.floats(0, 1e5), pools=CAPACITIES)
def test_more_that_waits_takes_nothing_from_any_pool(waiting: float, more: float, pools: list[PoolCapacity]) -> None:
    before, after = cascade(waiting, pools), cascade(waiting + more, pools)
    assert all(after[name] >= before[name] - 1e-9 * (1 + waiting) for name in before)
