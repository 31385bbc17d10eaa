"""Training on a trace's first part and replaying the rest under each policy: what `skyscraper simulate` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.admission import require_admissible
from skyscraper.control.demand import Options, demand, options, price_grid
from skyscraper.control.plan import StreamForecast, plan
from skyscraper.control.prices import plan_prices
from skyscraper.control.units import SECONDS_PER_DAY, core_seconds_per_segment, usd_per_segment
from skyscraper.profile.predict import (
    AHEAD_SEGMENTS,
    ResidualModel,
    fit_predictor,
    fit_residuals,
    out_of_fold,
    segment_features,
)
from skyscraper.simulate import policies
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.optimum import optimum
from skyscraper.simulate.replay import World, replay
from skyscraper.simulate.trace import Trace

Floats = NDArray[np.float64]

POLICIES = ("static", "videostorm", "chameleon", "skyscraper", "priced", "optimum")
_SLOT_SECONDS = 900.0
_PROFILE_PERIOD_SEGMENTS = 64


@dataclass(frozen=True)
class Resources:
    """What the streams share. `reserve_seconds` of the buffer are kept free by the guard, to ride out an outage."""

    cores: float
    buffer_seconds: float
    usd_per_day: float = 0.0
    uncertainty: float = 0.1
    reserve_seconds: float = 0.0


@dataclass(frozen=True)
class Disturbance:
    """What the controllers are not told. Work differs from its estimate by a factor; the pool stands still a while
    (seconds after the start of the test part)."""

    work_factor: float = 1.0
    outage_start_seconds: float = 0.0
    outage_seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """One policy over the test part. Quality is the mean per segment, lost segments counting 0."""

    policy: str
    mean_quality: float
    share_of_optimum: float
    core_seconds: float
    burst_usd: float
    overspend_usd: float
    overflow_segments: int
    max_backlog_seconds: float
    switch_seconds_p99: float
    plan_seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """What the ablations turn."""

    categories: int = 4
    plan_window_seconds: float = 2 * SECONDS_PER_DAY
    look_ahead: bool = True
    residuals: bool = True
    forecast: bool = True
    seed: int = 0


class Study:
    """One training of all policies on traces (streams under one budget), to be replayed with many resources."""

    def __init__(self, traces: Sequence[Trace], *, train_fraction: float, settings: Settings = Settings()) -> None:
        _check(traces, train_fraction)
        self.settings = settings
        self._traces = traces
        self._segments = min(trace.segments for trace in traces)
        self._split = round(self._segments * train_fraction)
        self._seconds = traces[0].segment_seconds
        self._quality = np.stack([trace.quality[: self._segments] for trace in traces], axis=1)
        self._work = np.stack([trace.work_core_seconds[: self._segments] for trace in traces], axis=1)
        self._estimate = self._work[: self._split].mean(axis=0)
        burst = [trace.burst_usd for trace in traces]
        self._choice: list[Options] = [
            options(self._estimate[index], price) for index, price in enumerate(burst)
        ]

    @property
    def floor_cores(self) -> dict[str, float]:
        return {
            trace.name: float(self._estimate[index, 0]) / self._seconds for index, trace in enumerate(self._traces)
        }

    def run(
        self, policy: str, resources: Resources, disturbance: Disturbance = Disturbance(), *, bound: float | None = None
    ) -> Outcome:
        """Replay the test part. Raises Infeasible where not even the cheapest configurations fit."""
        require_admissible(self.floor_cores, cores=resources.cores, uncertainty=resources.uncertainty)
        count = (self._segments - self._split) * len(self._traces)
        best = self.bound(resources, disturbance) if bound is None else bound
        if policy == "optimum":
            return Outcome(policy, best / count, 1.0, np.nan, np.nan, 0.0, 0, np.nan, 0.0, 0.0)
        if policy not in POLICIES:
            raise TraceError(f"policy {policy!r} is not known; choose from {', '.join(POLICIES)}")
        world = self._world(resources, disturbance)
        if policy == "chameleon":
            # The paper's baseline has no guard: it may lose segments.
            world = world._replace(limit_seconds=np.inf)
        started = time.perf_counter()
        decide, observe, state = getattr(self, f"_{policy}")(resources)
        plan_seconds = time.perf_counter() - started
        clock, sums = np.array([0.0, 0.0, 1.0]), np.zeros(6)
        clock[0] = 0.0
        chosen = np.zeros((world.quality.shape[0], len(self._traces)), dtype=np.int16)
        _warm(decide, observe, state, world)
        started = time.perf_counter()
        replay(decide, observe, state, world, clock, sums, chosen, 0, world.quality.shape[0])
        per_switch = (time.perf_counter() - started) / count
        return Outcome(
            policy,
            float(sums[0] / count),
            float(sums[0] / best) if best > 0 else 1.0,
            float(sums[1]),
            float(sums[2]),
            float(max(sums[5], 0.0)),
            int(sums[3]),
            float(sums[4]),
            per_switch,
            plan_seconds,
        )

    def bound(self, resources: Resources, disturbance: Disturbance = Disturbance()) -> float:
        """Sum of qualities that ground truth would allow."""
        test = slice(self._split, self._segments)
        seconds = (self._segments - self._split) * self._seconds - disturbance.outage_seconds
        width = self._quality.shape[2]
        usd = resources.usd_per_day * (self._segments - self._split) * self._seconds / SECONDS_PER_DAY
        choice = self._choice[0]
        if len(self._traces) > 1 and choice.usd.any():
            # Streams with prices of their own: mean price; exact for equal ones.
            choice = replace(choice, usd=np.mean([each.usd for each in self._choice], axis=0))
        return optimum(
            self._quality[test].reshape(-1, width),
            self._work[test].reshape(-1, width) * disturbance.work_factor,
            choice,
            # A full buffer may be left behind at the end.
            work_budget=resources.cores * (seconds + resources.buffer_seconds),
            usd_budget=usd,
        )

    # Each of the following returns decide, observe and the state they work on.

    def _static(self, resources: Resources) -> Any:
        """The best one configuration that keeps up on its own, by training quality; streams share cores equally."""
        share = core_seconds_per_segment(resources.cores, self._seconds) / len(self._traces)
        value = self._quality[: self._split].mean(axis=0)
        order = np.full((len(self._traces), 2), -1, dtype=np.int64)
        for v in range(len(self._traces)):
            fits = [k for k, work in enumerate(self._estimate[v]) if work <= share] or [0]
            order[v, 0] = max(fits, key=lambda k: value[v, k])
        return policies.decide_ladder, policies.observe_nothing, policies.Ladder(order, self._estimate)

    def _videostorm(self, resources: Resources) -> Any:
        """The most qualitative that the buffer still holds: full early, then what runs in real time."""
        del resources
        order = np.argsort(-self._quality[: self._split].mean(axis=0), axis=1)
        return policies.decide_ladder, policies.observe_nothing, policies.Ladder(order, self._estimate)

    def _chameleon(self, resources: Resources) -> Any:
        """The largest target whose mean work, profiling included, fits the pool on the training part."""
        share = core_seconds_per_segment(resources.cores, self._seconds) / len(self._traces)
        train = self._quality[: self._split : _PROFILE_PERIOD_SEGMENTS]
        overhead = self._estimate.sum(axis=1).mean() / _PROFILE_PERIOD_SEGMENTS
        target = 0.0
        for candidate in np.linspace(0, 1, 101):
            reached = train >= candidate * train.max(axis=2, keepdims=True)
            work = np.take_along_axis(self._estimate[None], np.argmax(reached, axis=2)[..., None], axis=2)
            if work.mean() + overhead <= share:
                target = float(candidate)
        state = policies.Profiled(
            np.ascontiguousarray(self._quality[self._split :]),
            self._estimate,
            np.zeros(len(self._traces), dtype=np.int64),
            _PROFILE_PERIOD_SEGMENTS,
            target,
        )
        return policies.decide_profiled, policies.observe_profiled, state

    def _skyscraper(self, resources: Resources) -> Any:
        forecasts, centres = [], []
        for v in range(len(self._traces)):
            centre, share = self._categories[v]
            choice = self._choice[v]
            forecasts.append(StreamForecast(centre[:, choice.configuration], share, choice.work, choice.usd))
            centres.append(centre)
        made = plan(
            forecasts,
            work_core_seconds=core_seconds_per_segment(resources.cores, self._seconds),
            usd=usd_per_segment(resources.usd_per_day, self._seconds),
        )
        alpha = np.stack(made.alpha)
        state = policies.Planned(
            alpha,
            np.zeros_like(alpha),
            np.stack(centres),
            np.stack([forecast.quality for forecast in forecasts]),
            np.stack([choice.work for choice in self._choice]),
            np.stack([choice.usd for choice in self._choice]),
            self._choice[0].configuration,
            np.zeros(len(self._traces), dtype=np.int64),
        )
        return policies.decide_planned, policies.observe_planned, state

    def _priced(self, resources: Resources) -> Any:
        predictions, residuals = self._predictions
        slot_segments = max(1, round(_SLOT_SECONDS / self._seconds))
        per_day = max(1, round(SECONDS_PER_DAY / self._seconds))
        slots = int(np.ceil(per_day / slot_segments))
        first = self._split % per_day
        slot_of = ((np.arange(self._split) % per_day) // slot_segments).astype(np.int64)
        if not self.settings.forecast:
            slot_of = np.zeros_like(slot_of)
        honest = self._honest

        def table(mu: float) -> tuple[Any, float]:
            parts = []
            for v in range(len(self._traces)):
                parts.append(
                    demand(honest[:, v], self._quality[: self._split, v], slot_of, slots, self._choice[v], grid, mu)
                )
            total = replace(
                parts[0],
                value=sum((part.value for part in parts[1:]), parts[0].value),
                work=sum((part.work for part in parts[1:]), parts[0].work),
                usd=sum((part.usd for part in parts[1:]), parts[0].usd),
            )
            if not self.settings.forecast:
                total = replace(
                    total,
                    value=np.tile(total.value[:1], (slots, 1)),
                    work=np.tile(total.work[:1], (slots, 1)),
                    usd=np.tile(total.usd[:1], (slots, 1)),
                )
            prices = plan_prices(
                total,
                cores=resources.cores,
                segments_per_second=1 / self._seconds,
                slot_seconds=_SLOT_SECONDS,
                buffer_seconds=max(resources.buffer_seconds - resources.reserve_seconds, self._seconds),
            )
            # What the middle of the buffer would spend.
            middle = prices.price[:, len(prices.lags) // 2]
            spend = np.mean([np.interp(price, total.prices, total.usd[slot]) for slot, price in enumerate(middle)])
            return prices, float(spend)

        grid = price_grid(
            np.concatenate([honest[:, v] for v in range(len(self._traces))]), self._choice[0]
        )
        budget = usd_per_segment(resources.usd_per_day, self._seconds)
        mu = 0.0
        prices, spend = table(mu)
        if spend > budget:
            low, high = 0.0, 1.0
            while table(high)[1] > budget and high < 1e12:
                high *= 4
            for _ in range(12):
                mu = (low + high) / 2
                prices, spend = table(mu)
                low, high = (mu, high) if spend > budget else (low, mu)
            mu = high
            prices, _ = table(mu)
        # The test part starts at some time of day.
        shifted = np.roll(prices.price, -(first // slot_segments), axis=0)
        width = self._quality.shape[2]
        state = policies.Priced(
            predictions,
            np.ascontiguousarray(shifted),
            prices.lags,
            np.array([mu]),
            slot_segments,
            AHEAD_SEGMENTS * self._seconds if self.settings.look_ahead else np.inf,
            np.stack([choice.work for choice in self._choice]),
            np.stack([choice.usd for choice in self._choice]),
            self._choice[0].configuration,
            np.zeros((len(self._traces), width)),
            np.stack([model.covariance for model in residuals]),
            np.array([model.persistence for model in residuals]),
            np.stack([model.covariance for model in residuals]),
            np.stack([model.noise for model in residuals]),
            np.ones(len(self._traces)),
        )
        return policies.decide_priced, policies.observe_priced, state

    @cached_property
    def _categories(self) -> list[tuple[Floats, Floats]]:
        """Per stream the centres [C,K] and shares [C] over the last plan window of training."""
        from sklearn.cluster import KMeans

        found = []
        window = round(self.settings.plan_window_seconds / self._seconds)
        for v in range(len(self._traces)):
            train = self._quality[: self._split, v]
            count = min(self.settings.categories, len(np.unique(train, axis=0)))
            model = KMeans(count, n_init=4, random_state=self.settings.seed).fit(train[:: max(1, len(train) // 20_000)])
            labels = model.predict(train[-window:])
            share = np.bincount(labels, minlength=count) / len(labels)
            centre = np.asarray(model.cluster_centers_, dtype=np.float64)
            if count < self.settings.categories:
                missing = self.settings.categories - count
                centre = np.concatenate([centre, np.repeat(centre[-1:], missing, axis=0)])
                share = np.concatenate([share, np.zeros(missing)])
            found.append((centre, share))
        return found

    @cached_property
    def _trained(self) -> tuple[Floats, list[ResidualModel], Floats]:
        test = self._segments - self._split
        predictions = np.empty((2, test, *self._quality.shape[1:]))
        honest = np.empty((self._split, *self._quality.shape[1:]))
        models = []
        for v, trace in enumerate(self._traces):
            quality = self._quality[: self._split, v]
            for ahead in (False, True):
                if ahead and not self.settings.look_ahead:
                    predictions[1, :, v] = predictions[0, :, v]
                    continue
                inputs = segment_features(trace.features[: self._segments], self._seconds, 0, ahead=ahead)
                predictor = fit_predictor(inputs[: self._split], quality, seed=self.settings.seed)
                predictions[int(ahead), :, v] = predictor.predict(inputs[self._split :])
                if not ahead:
                    honest[:, v] = out_of_fold(inputs[: self._split], quality, seed=self.settings.seed)
            model = fit_residuals(quality - honest[:, v])
            if not self.settings.residuals:
                model = replace(model, covariance=np.zeros_like(model.covariance))
            models.append(model)
        return predictions, models, honest

    @property
    def _predictions(self) -> tuple[Floats, list[ResidualModel]]:
        return self._trained[0], self._trained[1]

    @property
    def _honest(self) -> Floats:
        return self._trained[2]

    def _world(self, resources: Resources, disturbance: Disturbance) -> World:
        return World(
            np.ascontiguousarray(self._quality[self._split :]),
            np.ascontiguousarray(self._work[self._split :] * disturbance.work_factor),
            np.stack([choice.work for choice in self._choice]),
            np.stack([choice.usd for choice in self._choice]),
            self._choice[0].configuration,
            self._seconds,
            resources.cores,
            max(resources.buffer_seconds - resources.reserve_seconds, 0.0),
            resources.buffer_seconds,
            resources.uncertainty,
            resources.usd_per_day,
            disturbance.outage_start_seconds,
            disturbance.outage_start_seconds + disturbance.outage_seconds,
        )


def _warm(decide: Callable[..., Any], observe: Callable[..., Any], state: Any, world: World) -> None:
    """Compile before timing: no round is replayed."""
    chosen = np.zeros((1, world.quality.shape[1]), dtype=np.int16)
    replay(decide, observe, state, world, np.array([0.0, 0.0, 1.0]), np.zeros(6), chosen, 0, 0)


def _check(traces: Sequence[Trace], train_fraction: float) -> None:
    if not traces:
        raise TraceError("no trace given")
    if not 0 < train_fraction < 1:
        raise TraceError(f"train fraction is {train_fraction:g}; expected a number between 0 and 1, as 0.625")
    first = traces[0]
    for trace in traces[1:]:
        if trace.configurations != first.configurations or trace.segment_seconds != first.segment_seconds:
            raise TraceError(
                f"{trace.name} has {trace.configurations} configurations of {trace.segment_seconds:g} s segments, "
                f"{first.name} {first.configurations} of {first.segment_seconds:g} s; streams that share a budget "
                "must have the same number of both here"
            )
        if (trace.burst_usd is None) != (first.burst_usd is None):
            raise TraceError(f"{trace.name} and {first.name}: either all traces have burst_usd or none")
    segments = min(trace.segments for trace in traces)
    if not 60 <= round(segments * train_fraction) <= segments - 10:
        raise TraceError(
            f"{segments} segments at train fraction {train_fraction:g} leave {round(segments * train_fraction)} to "
            "train on and the rest to test; 60 and 10 are the least"
        )
