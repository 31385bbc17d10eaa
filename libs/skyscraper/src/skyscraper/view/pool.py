"""The pool's plan as it is shown. The one place of the views that knows how its arrays lie in the message."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.bus.reports import seconds
from skyscraper.profile.arrays import from_proto
from skyscraper.v1 import plan_pb2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PoolView:
    """lags [L] seconds; price [S,M,L] of a core-second by slot of the day, level of content and lag; edges [M-1];
    usd_curve [S+1]. Units as in plan.proto."""

    version: int
    made_seconds: float
    lease_seconds: float
    cores: float
    limit_seconds: float
    day_seconds: float
    slot_seconds: float
    lags: Floats
    price: Floats
    edges: Floats
    last_need: float
    usd_price: float
    usd_per_day: float
    usd_curve: Floats
    refused_streams: tuple[str, ...]

    def age_seconds(self, now_seconds: float) -> float:
        return max(0.0, now_seconds - self.made_seconds)

    def stale(self, now_seconds: float) -> bool:
        return self.age_seconds(now_seconds) > self.lease_seconds > 0

    def slot(self, now_seconds: float) -> int:
        """Of the content's day, counted from midnight UTC."""
        return int(now_seconds % self.day_seconds / self.slot_seconds) % len(self.price)

    def clock(self, slot: int) -> str:
        """When a slot begins, as a time of day; in a compressed day, as its share of 24 hours."""
        minutes = round(slot * self.slot_seconds / self.day_seconds * 1440)
        return f"{minutes // 60:02d}:{minutes % 60:02d}"

    @property
    def level(self) -> int:
        """Of the newest content that the planner knew."""
        return int(np.searchsorted(self.edges, self.last_need))

    def prices_over_lag(self, slot: int, level: int, count: int) -> Floats:
        """[count] at even steps from no lag to the limit."""
        lags = np.linspace(0.0, self.limit_seconds, count)
        return np.asarray(np.interp(lags, self.lags, self.price[slot, level]))

    def price_at(self, slot: int, level: int, lag_seconds: float) -> float:
        return float(np.interp(lag_seconds, self.lags, self.price[slot, level]))

    def usd_planned(self, now_seconds: float) -> float:
        """Dollars that the plan lets be spent of this day by now."""
        at = now_seconds % self.day_seconds / self.day_seconds * (len(self.usd_curve) - 1)
        share = np.interp(at, np.arange(len(self.usd_curve)), self.usd_curve) if len(self.usd_curve) > 1 else 0.0
        return float(share) * self.usd_per_day

    def by_hour(self, lag_seconds: float, hours: int = 24) -> Floats:
        """[hours] the price at that lag, mean over the slots of each part of the day and the levels."""
        at_lag = np.array(
            [np.mean([np.interp(lag_seconds, self.lags, row) for row in levels]) for levels in self.price]
        )
        # Where slots are longer than an hour, several hours show the same.
        edges = np.linspace(0, len(at_lag), hours + 1)
        return np.array(
            [
                at_lag[int(start) : max(int(start) + 1, int(np.ceil(stop)))].mean()
                for start, stop in zip(edges[:-1], edges[1:], strict=True)
            ]
        )


def pool_view(plan: plan_pb2.Plan) -> PoolView:
    """Raises ProfileError where arrays do not fit together."""
    pool = plan.pool
    lags = from_proto(pool.lags, None)
    edges = from_proto(pool.edges, None)
    price = from_proto(pool.price, None, len(edges) + 1, len(lags))
    return PoolView(
        plan.version,
        seconds(plan.made_time),
        plan.lease_seconds,
        pool.cores,
        pool.limit_seconds,
        pool.day_seconds or 86_400.0,
        pool.slot_seconds or (pool.day_seconds or 86_400.0) / max(1, len(price)),
        lags,
        price,
        edges,
        pool.last_need,
        pool.usd_price,
        pool.usd_per_day,
        from_proto(pool.usd_curve, None) if pool.HasField("usd_curve") else np.zeros(0),
        tuple(pool.refused_streams),
    )
