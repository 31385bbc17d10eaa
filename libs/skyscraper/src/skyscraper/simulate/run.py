"""Replaying a trace's last part under each policy, after training on the first: what `skyscraper simulate` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyscraper.control import priced
from skyscraper.control.admission import require_admissible
from skyscraper.control.demand import Sample, demand, options
from skyscraper.control.lookahead import Table
from skyscraper.control.plan import StreamForecast, plan
from skyscraper.control.prices import PricePlan, plan_streams
from skyscraper.control.units import SECONDS_PER_DAY, core_seconds_per_segment, usd_per_segment
from skyscraper.profile.forecast import Forecaster, latest_input
from skyscraper.profile.predict import AHEAD_SEGMENTS
from skyscraper.simulate import policies
from skyscraper.simulate.conditions import (
    UNDISTURBED,
    Disturbance,
    Resources,
    burst_up,
    check_conditions,
    held_seconds,
)
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.optimum import optimum
from skyscraper.simulate.replay import FRESH_CLOCK, SUMS, World, replay
from skyscraper.simulate.trace import Trace
from skyscraper.simulate.training import ContentModel, QualityModel, Settings, learn_content, learn_quality

Floats = NDArray[np.float64]

POLICIES = ("static", "videostorm", "chameleon", "skyscraper", "priced", "optimum")
# Shorter slots price short regimes better, and a plan takes longer; one must not outlast the buffer by much.
_SLOT_SECONDS, _SHORT_SLOT_SECONDS = 300.0, 200.0
_PROFILE_PERIOD_SEGMENTS = 64
_UNCERTAINTY_QUANTILE = 0.999
# No measurement of CPU time is surer than this.
_LEAST_UNCERTAINTY = 0.05
# Over days, segments that take more than estimated and those that take less balance but for so much.
_ADMISSION_UNCERTAINTY = 0.1
# So that the p99 rests on ten calls.
_TIMED_SWITCHES = 1001


@dataclass(frozen=True)
class Outcome:
    """One policy over the test part. Quality is the mean per segment, lost segments counting 0.

    What an upper bound does not have (the optimum's work, dollars and backlog) is None.
    """

    policy: str
    mean_quality: float
    share_of_optimum: float
    core_seconds: float | None
    burst_usd: float | None
    overspend_usd: float
    overflow_segments: int
    burst_lost_segments: int
    max_backlog_seconds: float | None
    switch_seconds_p99: float
    plan_seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Controller(NamedTuple):
    """A policy's compiled functions (see `policies`), the state they work on, and what is done before each plan window
    of a policy that has them."""

    prepare: Any
    decide: Any
    observe: Any
    state: Any
    replan: Callable[[int], None] | None = None


class Study:
    """One training of all policies on traces (streams under one budget), to be replayed with many resources."""

    def __init__(self, traces: Sequence[Trace], *, train_fraction: float, settings: Settings | None = None) -> None:
        _check(traces, train_fraction)
        split = round(min(trace.segments for trace in traces) * train_fraction)
        self._begin(traces, split, settings or Settings())

    def _begin(self, traces: Sequence[Trace], split: int, settings: Settings) -> None:
        self.settings = settings
        self._traces = traces
        self._segments = min(trace.segments for trace in traces)
        self._split = split
        self._seconds = traces[0].segment_seconds
        self._quality = np.stack([trace.quality[: self._segments] for trace in traces], axis=1)
        self._work = np.stack([trace.work_core_seconds[: self._segments] for trace in traces], axis=1)
        self._bytes = np.stack([trace.segment_bytes[: self._segments] for trace in traces], axis=1)
        self._estimate = self._learn_work()
        self._plan_seconds = 0.0
        self._choose_options(Resources(cores=1.0, buffer_seconds=0.0))

    def _learn_work(self) -> Floats:
        """[N,K] core-seconds of a segment, as training has it."""
        return np.asarray(self._work[: self._split].mean(axis=0))

    @property
    def test_seconds(self) -> float:
        return (self._segments - self._split) * self._seconds

    @property
    def floor_cores(self) -> dict[str, float]:
        return {trace.name: float(self._estimate[index, 0]) / self._seconds for index, trace in enumerate(self._traces)}

    @cached_property
    def work_uncertainty(self) -> float:
        """Relative: of 1,000 training segments, 999 take at most (1 + this) times their estimate."""
        over = self._work[: self._split] / self._estimate - 1
        return max(float(np.quantile(over, _UNCERTAINTY_QUANTILE, axis=0).max()), _LEAST_UNCERTAINTY)

    def run(
        self, policy: str, resources: Resources, disturbance: Disturbance = UNDISTURBED, *, bound: float | None = None
    ) -> Outcome:
        """Replay the test part. Raises Infeasible where not even the cheapest configurations fit."""
        check_conditions(resources, disturbance)
        require_admissible(self.floor_cores, cores=resources.cores, uncertainty=_ADMISSION_UNCERTAINTY)
        count = (self._segments - self._split) * len(self._traces)
        best = self.bound(resources, disturbance) if bound is None else bound
        if policy == "optimum":
            return Outcome(policy, best / count, 1.0, None, None, 0.0, 0, 0, None, 0.0, 0.0)
        if policy not in POLICIES:
            raise TraceError(f"policy {policy!r} is not known; choose from {', '.join(POLICIES)}")
        self._choose_options(resources)
        world = self._world(resources, disturbance)
        if policy == "chameleon":
            # The paper's baseline has no guard: it may lose segments.
            world = world._replace(limit_seconds=np.inf)
        self._plan_seconds = 0.0
        controller: Controller = getattr(self, f"_{policy}")(resources)
        prepare, decide, observe, state = controller[:4]
        clock, sums = self._clock(resources), np.zeros(SUMS)
        chosen = np.zeros((world.quality.shape[0], len(self._traces)), dtype=np.int16)
        _warm(prepare, decide, observe, state, world)
        rounds = world.quality.shape[0]
        window = rounds if controller.replan is None else round(self.settings.plan_window_seconds / self._seconds)
        for start in range(0, rounds, window):
            if controller.replan is not None:
                controller.replan(start)
            replay(prepare, decide, observe, state, world, clock, sums, chosen, start, min(start + window, rounds))
        per_switch = _switch_seconds_p99(decide, state, world)
        return Outcome(
            policy,
            float(sums[0] / count),
            float(sums[0] / best) if best > 0 else 1.0,
            float(sums[1]),
            float(sums[2]),
            float(max(sums[5], 0.0)),
            int(sums[3]),
            int(sums[6]),
            float(sums[4]),
            per_switch,
            self._plan_seconds,
        )

    def _choose_options(self, resources: Resources) -> None:
        """Without a budget there are no burst options to weigh."""
        self._choice = [
            options(self._estimate[index], trace.burst_usd if resources.usd_per_day > 0 else None)
            for index, trace in enumerate(self._traces)
        ]

    def bound(self, resources: Resources, disturbance: Disturbance = UNDISTURBED) -> float:
        """Sum of qualities that ground truth would allow."""
        self._choose_options(resources)
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

    @property
    def _first_round(self) -> int:
        """Rounds since midnight when the test part begins."""
        return self._split % round(SECONDS_PER_DAY / self._seconds)

    def _clock(self, resources: Resources) -> Floats:
        """The pool free, estimates taken as right; of a day that has begun, its share of the budget counts as spent."""
        begun = self._first_round * self._seconds / SECONDS_PER_DAY
        clock = FRESH_CLOCK.copy()
        clock[1] = resources.usd_per_day * begun
        return clock

    @cached_property
    def _categories(self) -> list[ContentModel]:
        return [
            learn_content(self._quality[: self._split, v], self._seconds, self.settings)
            for v in range(len(self._traces))
        ]

    @cached_property
    def _trained(self) -> list[QualityModel]:
        return [
            learn_quality(
                self._quality[:, v], trace.features[: self._segments], self._split, self._seconds, self.settings
            )
            for v, trace in enumerate(self._traces)
        ]

    # Each of the following makes a policy's controller.

    def _static(self, resources: Resources) -> Controller:
        """The best one configuration that keeps up on its own, by training quality; streams share cores equally."""
        share = core_seconds_per_segment(resources.cores, self._seconds) / len(self._traces)
        value = self._quality[: self._split].mean(axis=0)
        order = np.full((len(self._traces), 2), -1, dtype=np.int64)
        for v in range(len(self._traces)):
            fits = [k for k, work in enumerate(self._estimate[v]) if work <= share] or [0]
            order[v, 0] = max(fits, key=lambda k: value[v, k])
        return Controller(
            policies.prepare_nothing,
            policies.decide_ladder,
            policies.observe_nothing,
            policies.Ladder(order, self._estimate),
        )

    def _videostorm(self, resources: Resources) -> Controller:
        """The most qualitative that the buffer still holds: full early, then what runs in real time."""
        del resources
        order = np.argsort(-self._quality[: self._split].mean(axis=0), axis=1)
        return Controller(
            policies.prepare_nothing,
            policies.decide_ladder,
            policies.observe_nothing,
            policies.Ladder(order, self._estimate),
        )

    def _chameleon(self, resources: Resources) -> Controller:
        """The target that does best on the training part, replayed with the same resources."""
        train = self._world(resources, Disturbance(), part=slice(0, self._split))._replace(limit_seconds=np.inf)

        def state(quality: Floats, target: float) -> policies.Profiled:
            current = np.zeros(len(self._traces), dtype=np.int64)
            return policies.Profiled(quality, self._estimate, current, _PROFILE_PERIOD_SEGMENTS, target)

        def trained(target: float) -> float:
            sums, chosen = np.zeros(SUMS), np.zeros((self._split, len(self._traces)), dtype=np.int16)
            replay(
                policies.prepare_nothing,
                policies.decide_profiled,
                policies.observe_profiled,
                state(train.quality, target),
                train,
                FRESH_CLOCK.copy(),
                sums,
                chosen,
                0,
                self._split,
            )
            return float(sums[0])

        target = max((float(each) for each in np.linspace(0, 1, 41)), key=trained)
        test = np.ascontiguousarray(self._quality[self._split :])
        return Controller(
            policies.prepare_nothing, policies.decide_profiled, policies.observe_profiled, state(test, target)
        )

    def _skyscraper(self, resources: Resources) -> Controller:
        rounds, streams = self._segments - self._split, len(self._traces)
        models = self._categories
        width = max(model.categories.count for model in models)
        works = np.stack([choice.work for choice in self._choice])
        usds = np.stack([choice.usd for choice in self._choice])
        configuration = self._choice[0].configuration
        # Streams with fewer categories repeat their last, which nothing is ever closest to first.
        centres = np.stack([_padded(model.categories.centres, width) for model in models])
        alpha = np.zeros((streams, width, works.shape[1]))
        state = policies.Planned(
            alpha,
            np.zeros_like(alpha),
            centres,
            np.ascontiguousarray(centres[:, :, configuration]),
            works,
            usds,
            configuration,
            np.zeros(streams, dtype=np.int64),
            np.zeros((rounds, streams), dtype=np.int64),
        )

        def replan(start: int) -> None:
            """The paper's planner, once per window, from the categories seen so far."""
            forecasts = []
            for v, model in enumerate(models):
                past = np.concatenate([model.labels, state.labels[:start, v]])
                share = self._forecast_share(past, model.categories.count, model.forecaster)
                forecasts.append(StreamForecast(model.categories.centres[:, configuration], share, works[v], usds[v]))
            started = time.perf_counter()
            made = plan(
                forecasts,
                work_core_seconds=core_seconds_per_segment(resources.cores, self._seconds),
                usd=usd_per_segment(resources.usd_per_day, self._seconds),
            )
            self._plan_seconds = max(self._plan_seconds, time.perf_counter() - started)
            for v, each in enumerate(made.alpha):
                state.alpha[v] = _padded(each, width)
            state.used[:] = 0.0

        return Controller(policies.prepare_nothing, policies.decide_planned, policies.observe_planned, state, replan)

    def _forecast_share(self, past: NDArray[np.int64], count: int, forecaster: Forecaster | None) -> Floats:
        """Of the coming window: as the forecaster says, or as the last window was where there was too little to train
        one."""
        if not self.settings.forecast:
            return np.asarray(np.bincount(past[: self._split], minlength=count) / self._split)
        if forecaster is not None:
            return np.asarray(forecaster.forecast(latest_input(past, count, self._seconds))[0])
        window = past[-round(self.settings.plan_window_seconds / self._seconds) :]
        return np.asarray(np.bincount(window, minlength=count) / len(window))

    def _priced(self, resources: Resources) -> Controller:
        models = self._trained
        predictions = np.stack([model.predictions for model in models], axis=2)
        slot_segments = max(1, round(self._slot_seconds(resources) / self._seconds))
        slot_seconds = slot_segments * self._seconds
        started = time.perf_counter()
        plan = self._price_plan(resources, slot_segments)
        self._plan_seconds = time.perf_counter() - started
        first = self._first_round
        rounds = np.arange(len(predictions[0]))
        coming = [
            Sample(predictions[0, :, v], predictions[0, :, v], (rounds + first) // slot_segments, choice)
            for v, choice in enumerate(self._choice)
        ]
        slots = int((rounds[-1] + first) // slot_segments) + 1
        known = demand(coming, slots, plan.grid, plan.usd_price)
        # The same by round instead of by slot, for the level of the newest content.
        each = demand([replace(one, slots=rounds) for one in coming], len(rounds), plan.grid, plan.usd_price)
        width = self._quality.shape[2]
        covariance = np.stack([model.residuals.covariance for model in models])
        state = priced.Priced(
            predictions,
            Table(plan.grid, plan.lags, plan.price, plan.after, plan.edges),
            np.empty(len(plan.lags)),
            known.value,
            known.work * slot_segments / resources.cores - slot_seconds,
            np.concatenate([[0.0], np.cumsum(each.need)]),
            plan.last_need,
            np.array([plan.usd_price, plan.usd_price]),
            plan.usd_curve,
            resources.usd_per_day,
            first,
            slot_segments,
            self._seconds,
            AHEAD_SEGMENTS * self._seconds if self.settings.look_ahead else np.inf,
            np.stack([choice.work for choice in self._choice]),
            np.stack([choice.usd for choice in self._choice]),
            self._choice[0].configuration,
            np.zeros((len(self._traces), width)),
            covariance.copy(),
            np.array([model.residuals.persistence for model in models]),
            covariance,
            np.stack([model.residuals.noise for model in models]),
            np.ones(len(self._traces)),
        )
        return Controller(priced.prepare_priced, priced.decide_priced, priced.observe_priced, state)

    def _slot_seconds(self, resources: Resources) -> float:
        return _SLOT_SECONDS if resources.buffer_seconds >= _SLOT_SECONDS else _SHORT_SLOT_SECONDS

    def _price_plan(self, resources: Resources, slot_segments: int) -> PricePlan:
        rows = np.arange(self._split)
        return plan_streams(
            [
                Sample(model.honest, self._quality[: self._split, v], rows // slot_segments, choice)
                for v, (model, choice) in enumerate(zip(self._trained, self._choice, strict=True))
            ],
            cores=resources.cores,
            segment_seconds=self._seconds,
            slot_seconds=slot_segments * self._seconds,
            buffer_seconds=max(self._limit_seconds(resources), self._seconds),
            usd_per_day=resources.usd_per_day,
            **({} if self.settings.forecast else {"reach_seconds": SECONDS_PER_DAY}),
        )

    def _world(self, resources: Resources, disturbance: Disturbance, part: slice | None = None) -> World:
        part = part or slice(self._split, self._segments)
        segment_bytes = self._bytes[part]
        uplink = resources.uplink_bytes_per_second
        return World(
            np.ascontiguousarray(self._quality[part]),
            np.ascontiguousarray(self._work[part] * disturbance.work_factor),
            np.stack([choice.work for choice in self._choice]),
            np.stack([choice.usd for choice in self._choice]),
            self._choice[0].configuration,
            self._seconds,
            resources.cores,
            self._limit_seconds(resources),
            resources.buffer_seconds,
            self.work_uncertainty if resources.uncertainty is None else resources.uncertainty,
            resources.usd_per_day,
            self._first_round,
            disturbance.outage_start_seconds,
            disturbance.outage_start_seconds + disturbance.outage_seconds,
            np.concatenate([[0.0], np.cumsum(segment_bytes.sum(axis=1))]),
            np.inf if resources.buffer_bytes is None else resources.buffer_bytes,
            np.zeros_like(segment_bytes) if uplink is None else segment_bytes / uplink,
            self._burst_seconds(),
            burst_up(len(segment_bytes), self._seconds, resources, self.settings.seed),
        )

    def _limit_seconds(self, resources: Resources) -> float:
        """How far the pool may lag: what the buffer holds, less what is kept back for outages."""
        limit = resources.buffer_seconds
        if resources.buffer_bytes is not None:
            per_round = self._bytes[: self._split].sum(axis=1)
            limit = held_seconds(resources.buffer_bytes, limit, per_round, self._seconds)
        return max(limit - resources.reserve_seconds, 0.0)

    def _burst_seconds(self) -> Floats:
        """[N,O] round trips of burst options."""
        rows = []
        for choice, trace in zip(self._choice, self._traces, strict=True):
            seconds = np.zeros(trace.configurations) if trace.burst_seconds is None else trace.burst_seconds
            rows.append(np.where(choice.usd > 0, seconds[choice.configuration], 0.0))
        return np.stack(rows)


def _padded(rows: Floats, count: int) -> Floats:
    return np.asarray(np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)]))


def _switch_seconds_p99(decide: Callable[..., Any], state: Any, world: World) -> float:
    """Of single calls, as a service makes them: what the arguments' way into compiled code takes is in it."""
    taken = []
    for turn in range(_TIMED_SWITCHES):
        t, v = turn % world.quality.shape[0], turn % world.quality.shape[1]
        started = time.perf_counter()
        decide(state, t, v, 0.0, 1e300, 0.0)
        taken.append(time.perf_counter() - started)
    # The first call compiles this signature.
    return float(np.percentile(taken[1:], 99))


def _warm(
    prepare: Callable[..., Any], decide: Callable[..., Any], observe: Callable[..., Any], state: Any, world: World
) -> None:
    """Compile before timing: no round is replayed."""
    chosen = np.zeros((1, world.quality.shape[1]), dtype=np.int16)
    replay(prepare, decide, observe, state, world, FRESH_CLOCK.copy(), np.zeros(SUMS), chosen, 0, 0)


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
