"""The plan in force: the pool's prices by time of day and lag, and what each stream was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skyscraper.errors import SkyscraperError
from skyscraper.profile.arrays import from_proto
from skyscraper.v1 import plan_pb2
from skyscraper.view.fits import FitView
from skyscraper.view.pool import PoolView
from skyscraper.view.words import POLICIES, knobs

# Of the limit: where the price's rows by hour are shown.
LAG_SHARES = (0.0, 0.25, 0.5, 1.0)
HOURS = 24


@dataclass(frozen=True)
class PoolRow:
    """`price_by_hour`: rows as `lag_seconds`, each of 24 parts of the day, mean over levels of content."""

    version: int
    age_seconds: float
    stale: bool
    lease_seconds: float
    cores: float
    limit_seconds: float
    day_seconds: float
    slot_seconds: float
    clock: str
    levels: int
    level: int
    usd_price: float
    usd_per_day: float
    usd_planned: float
    refused_streams: tuple[str, ...]
    lag_seconds: tuple[float, ...]
    price_by_hour: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Mix:
    """The paper's plan for one category: share of each configuration, the largest first, those of nothing left out."""

    category: int
    share: float | None
    """Of the coming window by the forecast."""
    configurations: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class StreamRow:
    stream: str
    pipeline: str
    plan_version: int
    profile_version: str
    policy: str
    cores: float
    cores_share: float | None
    expected_quality: float
    quality_share: float | None
    work_scale: float
    drift_error: float
    drifted: bool
    refused: bool
    refusal: str
    mix: tuple[Mix, ...]


@dataclass(frozen=True)
class Plans:
    pool: PoolRow | None
    streams: tuple[StreamRow, ...]
    damaged: tuple[str, ...] = ()
    """Keys whose values cannot be read, with the reason."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def plans_view(
    pool: PoolView | None,
    plans: Mapping[str, plan_pb2.Plan],
    fits: Mapping[str, FitView],
    now_seconds: float,
    damaged: tuple[str, ...] = (),
) -> Plans:
    """plans, fits: by stream id."""
    rows = []
    broken = list(damaged)
    for name, plan in sorted(plans.items()):
        try:
            rows.append(_stream(name, plan, fits.get(name), pool))
        except SkyscraperError as error:
            broken.append(f"{name}: {error}")
    return Plans(None if pool is None else _pool(pool, now_seconds), tuple(rows), tuple(broken))


def _pool(pool: PoolView, now_seconds: float) -> PoolRow:
    lags = tuple(share * pool.limit_seconds for share in LAG_SHARES)
    return PoolRow(
        pool.version,
        pool.age_seconds(now_seconds),
        pool.stale(now_seconds),
        pool.lease_seconds,
        pool.cores,
        pool.limit_seconds,
        pool.day_seconds,
        pool.slot_seconds,
        pool.clock(pool.slot(now_seconds)),
        len(pool.edges) + 1,
        pool.level,
        pool.usd_price,
        pool.usd_per_day,
        pool.usd_planned(now_seconds),
        pool.refused_streams,
        lags,
        tuple(tuple(float(one) for one in pool.by_hour(lag, HOURS)) for lag in lags),
    )


def _stream(name: str, plan: plan_pb2.Plan, fit: FitView | None, pool: PoolView | None) -> StreamRow:
    own = plan.stream
    full = fit.dearest_quality if fit is not None else 0.0
    return StreamRow(
        stream=name,
        pipeline=own.pipeline,
        plan_version=plan.version,
        profile_version=own.profile_version,
        policy=POLICIES[own.policy],
        cores=own.cores,
        cores_share=own.cores / pool.cores if pool is not None and pool.cores > 0 else None,
        expected_quality=own.expected_quality,
        quality_share=own.expected_quality / full if full > 0 else None,
        work_scale=own.work_scale,
        drift_error=own.drift_error,
        drifted=own.drifted,
        refused=own.refused,
        refusal=own.refusal,
        mix=_mix(own, fit),
    )


def _mix(own: plan_pb2.StreamPlan, fit: FitView | None) -> tuple[Mix, ...]:
    if not own.HasField("alpha") or not own.alpha.shape:
        return ()
    found = []
    for category, shares in enumerate(from_proto(own.alpha, None, None)):
        named = [
            (knobs(fit.configurations[k], fit.varying) if fit and k < len(fit.configurations) else f"#{k}", float(one))
            for k, one in enumerate(shares)
            # Below half a percent a share is the solver's noise.
            if one >= 0.005
        ]
        named.sort(key=lambda one: -one[1])
        share = own.category_share[category] if category < len(own.category_share) else None
        found.append(Mix(category, share, tuple(named)))
    return tuple(found)
