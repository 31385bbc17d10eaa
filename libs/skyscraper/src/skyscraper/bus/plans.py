"""Plans on the bus: between the planner's objects and the values of sky.plans."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from skyscraper.control.outlook import PoolPrices
from skyscraper.control.prices import PricePlan
from skyscraper.errors import SkyscraperError
from skyscraper.profile.arrays import from_proto as array_of
from skyscraper.profile.arrays import to_proto as stored
from skyscraper.profile.errors import ProfileError
from skyscraper.v1 import plan_pb2

Floats = NDArray[np.float64]


class PlanError(SkyscraperError):
    """A plan on the bus that cannot be used."""


def encode_pool(
    price: PricePlan,
    *,
    cores: float,
    limit_seconds: float,
    day_seconds: float,
    slot_seconds: float,
    segment_seconds: float,
    usd_per_day: float,
    refused: Collection[str] = (),
) -> plan_pb2.PoolPlan:
    """Tables in single precision: half the bytes, and finer than any forecast."""
    return plan_pb2.PoolPlan(
        cores=cores,
        limit_seconds=limit_seconds,
        day_seconds=day_seconds,
        slot_seconds=slot_seconds,
        segment_seconds=segment_seconds,
        grid=stored(price.grid),
        lags=stored(price.lags),
        price=stored(price.price, "<f4"),
        after=stored(price.after, "<f4"),
        edges=stored(price.edges),
        last_need=price.last_need,
        usd_price=price.usd_price,
        usd_curve=stored(price.usd_curve),
        usd_per_day=usd_per_day,
        refused_streams=sorted(refused),
    )


def decode_pool(message: plan_pb2.PoolPlan) -> PoolPrices:
    """Raises PlanError where a part is damaged or does not fit the others."""
    try:
        grid, lags = array_of(message.grid, None), array_of(message.lags, None)
        edges = array_of(message.edges, None)
        price = array_of(message.price, None, len(edges) + 1, len(lags))
        after = array_of(message.after, *price.shape)
        usd_curve = array_of(message.usd_curve, len(price) + 1)
    except ProfileError as error:
        raise PlanError(f"the pool's plan cannot be used: {error}") from error
    numbers = {
        "cores": message.cores,
        "limit_seconds": message.limit_seconds,
        "day_seconds": message.day_seconds,
        "slot_seconds": message.slot_seconds,
        "segment_seconds": message.segment_seconds,
    }
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise PlanError(f"the pool's plan cannot be used: its {name} is {value:g}")
    for name, value in {
        "last_need": message.last_need,
        "usd_price": message.usd_price,
        "usd_per_day": message.usd_per_day,
    }.items():
        if not 0 <= value < float("inf"):
            raise PlanError(f"the pool's plan cannot be used: its {name} is {value:g}")
    if round(message.day_seconds / message.slot_seconds) != len(price) or not len(price):
        raise PlanError(
            f"the pool's plan cannot be used: it prices {len(price)} slots; {message.day_seconds:g} s of "
            f"{message.slot_seconds:g} s each are another number"
        )
    # Compiled code searches in these without looking at them twice; of lags it knows the form (`prices.worth_at`).
    rising = all((np.diff(one) >= 0).all() for one in (grid, lags, edges))
    if not rising or len(grid) < 1 or len(lags) < 2 or lags[-1] <= 0:
        raise PlanError("the pool's plan cannot be used: its prices, lags or levels do not rise")
    if not np.allclose(lags, lags[-1] * np.linspace(0, 1, len(lags)) ** 2, rtol=1e-6):
        raise PlanError("the pool's plan cannot be used: its lags do not grow as the square of their index")
    return PoolPrices(
        message.cores,
        message.limit_seconds,
        message.day_seconds,
        message.slot_seconds,
        message.segment_seconds,
        message.usd_per_day,
        PricePlan(grid, lags, price, after, edges, message.usd_price, usd_curve, message.last_need),
        frozenset(message.refused_streams),
    )


def decode_plan(value: bytes) -> plan_pb2.Plan:
    """A value of sky.plans. Raises PlanError."""
    try:
        message = plan_pb2.Plan.FromString(value)
    except DecodeError as error:
        raise PlanError(f"a value of sky.plans is no plan: {error}") from error
    if message.WhichOneof("scope") is None:
        raise PlanError("a value of sky.plans plans neither the pool nor a stream")
    return message


def decode_alpha(message: plan_pb2.StreamPlan, *, configurations: int) -> Floats:
    """The paper's plan α [C,K], each row summing to 1. Raises PlanError; ones without α are damaged too."""
    try:
        alpha = array_of(message.alpha, len(message.category_share), configurations)
    except ProfileError as error:
        raise PlanError(f"the plan of stream {message.stream_id} cannot be used: {error}") from error
    if (alpha < -1e-9).any() or (abs(alpha.sum(axis=1) - 1) > 1e-3).any():
        raise PlanError(f"the plan of stream {message.stream_id} cannot be used: its shares do not sum to 1")
    return alpha
