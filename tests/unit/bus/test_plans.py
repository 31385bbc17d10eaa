"""Plans as messages: what goes in comes out, and damage never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.bus.plans import PlanError, decode_alpha, decode_plan, decode_pool, encode_pool
from skyscraper.control.prices import PricePlan
from skyscraper.profile.arrays import to_proto
from skyscraper.v1 import plan_pb2


def prices(*, slots: int = 6, levels: int = 3, seed: int = 0) -> PricePlan:
    rng = np.random.default_rng(seed)
    shape = (slots, levels, 64)
    return PricePlan(
        grid=np.sort(rng.random(48)),
        lags=3_600 * np.linspace(0, 1, 64) ** 2,
        price=rng.random(shape).astype(np.float32).astype(np.float64),
        after=-rng.random(shape).astype(np.float32).astype(np.float64),
        edges=np.sort(rng.random(levels - 1)),
        usd_price=2.5,
        usd_curve=np.linspace(0, 1, slots + 1),
        last_need=0.4,
    )


def message(plan: PricePlan | None = None, **settings: Any) -> plan_pb2.PoolPlan:
    plan = plan or prices()
    defaults: dict[str, Any] = {
        "cores": 4.0,
        "limit_seconds": 3_000.0,
        "day_seconds": 600.0,
        "slot_seconds": 600.0 / len(plan.price),
        "segment_seconds": 2.0,
        "usd_per_day": 1.5,
        "refused": {"b", "a"},
    }
    return encode_pool(plan, **(defaults | settings))


@given(slots=st.integers(1, 20), levels=st.integers(1, 5), seed=st.integers(0, 100))
def test_what_goes_in_comes_out(slots: int, levels: int, seed: int) -> None:
    plan = prices(slots=slots, levels=levels, seed=seed)
    found = decode_pool(plan_pb2.PoolPlan.FromString(message(plan).SerializeToString()))
    for name in ("grid", "lags", "price", "after", "edges", "usd_curve"):
        np.testing.assert_array_equal(getattr(found.price, name), getattr(plan, name))
    assert (found.price.usd_price, found.price.last_need) == (plan.usd_price, plan.last_need)
    assert (found.cores, found.limit_seconds, found.usd_per_day, found.slots) == (4.0, 3_000.0, 1.5, slots)
    assert found.refused == {"a", "b"}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda pool: pool.ClearField("grid"), "shape"),
        (lambda pool: pool.price.shape.append(2), "shape"),
        (lambda pool: setattr(pool.after, "data", b"x"), "0 bytes"),
        (lambda pool: setattr(pool, "cores", 0.0), "cores is 0"),
        (lambda pool: setattr(pool, "usd_price", float("nan")), "usd_price is nan"),
        (lambda pool: setattr(pool, "slot_seconds", 7.0), "prices 6 slots"),
        (lambda pool: pool.grid.CopyFrom(to_proto(np.array([2.0, 1.0]))), "do not rise"),
        (lambda pool: pool.lags.CopyFrom(to_proto(np.linspace(0, 9, 64))), "square"),
    ],
)
def test_damage_is_one_clear_error(damage: Callable[[plan_pb2.PoolPlan], Any], why: str) -> None:
    pool = message()
    damage(pool)
    with pytest.raises(PlanError, match=why):
        decode_pool(pool)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_a_clear_error(data: bytes) -> None:
    try:
        plan = decode_plan(data)
        if plan.HasField("pool"):
            decode_pool(plan.pool)
    except PlanError:
        pass


def alpha(rows: NDArray[np.float64], categories: int) -> plan_pb2.StreamPlan:
    share = [1 / categories] * categories
    return plan_pb2.StreamPlan(stream_id="a", alpha=to_proto(rows), category_share=share)


def test_shares_of_configurations_are_read_and_must_sum_to_one() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
    np.testing.assert_array_equal(decode_alpha(alpha(rows, 2), configurations=3), rows)
    with pytest.raises(PlanError, match="sum to 1"):
        decode_alpha(alpha(rows * 2, 2), configurations=3)
    with pytest.raises(PlanError, match="shape"):
        decode_alpha(alpha(rows, 2), configurations=4)
