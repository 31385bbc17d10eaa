"""The switch: which configuration a segment gets, and what its report teaches.

The decisions themselves are in `skyscraper.control`; here is put together what they rest on: the plan, the profile, the
buffer, the last reports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from skyscraper.bus.plans import decode_alpha
from skyscraper.control.live import Choice, Placement, Rule, Situation, by_hand, by_plan, by_prices
from skyscraper.control.switcher import category
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.control.work import recalibrated
from skyscraper.pipeline import Configuration, Pipeline
from skyscraper.profile.predict import AHEAD_SEGMENTS
from skyscraper.v1 import plan_pb2, report_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.ahead import BEHIND_SEGMENTS, Ahead, Seen
from skyscraper_decoder.bursting import Bursting
from skyscraper_decoder.foresight import Foresight
from skyscraper_decoder.minds import Mind, Minds
from skyscraper_decoder.plans import PlanBook
from skyscraper_decoder.predicting import predict_one
from skyscraper_decoder.turnstile import Turn

Floats = NDArray[np.float64]

# Failures that tell how long an answer takes.
_TOO_SLOW = ("deadline", "link")
_RULES = {
    Rule.FIXED: report_pb2.RULE_FIXED,
    Rule.PRICED: report_pb2.RULE_PRICED,
    Rule.PLANNED: report_pb2.RULE_PLANNED,
    Rule.GUARDED: report_pb2.RULE_GUARDED,
    Rule.FLOOR: report_pb2.RULE_FLOOR,
}


@dataclass(frozen=True)
class AwaySpent:
    """What a segment took on burst machines: core-seconds as measured there, and how long it was away."""

    core_seconds: float
    seconds: float


@dataclass(frozen=True)
class Sending:
    """A segment that is to be done on burst machines: estimated core-seconds and seconds there, the longest it may be
    away, and by how much that is better than the pool (normalised quality)."""

    tenant: str
    core_seconds: float
    seconds: float
    most_seconds: float
    advantage: float


@dataclass(frozen=True)
class Decided:
    """A configuration, and what its report says of the choice. Without `mind` nothing is known of the pipeline's
    work and quality: no report, nothing to learn."""

    configuration: Configuration
    estimated_core_seconds: float = 0.0
    """Of the pool."""
    mind: Mind | None = None
    index: int = 0
    predicted: float = 0.0
    """Of the chosen configuration, before its residual."""
    report: report_pb2.Decision | None = None
    features: tuple[float, ...] = ()
    sending: Sending | None = None
    """None: in the pool."""
    weighed: Weighed | None = None


@dataclass(frozen=True)
class Weighed:
    """What a choice was made of, to make the next one of the same."""

    situation: Situation
    plan: plan_pb2.StreamPlan | None
    fixed: Configuration
    predicted: Floats
    pool_cores: float


class Switcher:
    """One for the process. `choose` and `learn` are called by a stream's own lane."""

    def __init__(
        self,
        plans: PlanBook,
        ahead: Ahead,
        minds: Minds,
        foresight: Foresight,
        bursting: Bursting | None = None,
    ) -> None:
        self._plans = plans
        self._ahead = ahead
        self._minds = minds
        self._foresight = foresight
        self._bursting = bursting

    def refused(self, stream_id: str) -> bool:
        """Whether the stream is not admitted, and so comes after all others."""
        plan = self._plans.stream(stream_id)
        return plan is not None and plan.refused

    def choose(
        self, line: Seen, partition: int, pipeline: Pipeline, fixed: Configuration, turn: Turn, tenant: str = ""
    ) -> Decided:
        """For the segment of `line`, at its turn. Without a tenant nothing is bought."""
        plan = self._plans.stream(line.stream_id)
        if plan is not None and plan.pipeline != pipeline.name:
            # Made for what the stream was before.
            plan = None
        mind = self._minds.of(line.stream_id, pipeline, plan)
        self._ahead.taken(partition, line.offset)
        if mind is None:
            return Decided(fixed)
        view = self._plans.pool()
        day_seconds = SECONDS_PER_DAY if view is None else view.prices.day_seconds
        line = self._ahead.completed(partition, line)
        before, behind = self._ahead.around(partition, line.offset, AHEAD_SEGMENTS, BEHIND_SEGMENTS)
        predicted, features = predict_one(mind.fit, line, before, behind, day_seconds)
        quality = mind.belief.quality(predicted)
        seconds = line.duration_seconds or mind.fit.segment_seconds
        lag = max(0.0, turn.start_seconds - line.arrived_seconds)
        situation = Situation(
            quality=quality,
            work=mind.fit.work.estimate(seconds) * mind.work_scale,
            work_price=self._foresight.work_price(lag),
            value_scale=1.0 if plan is None else plan.value_scale,
            slack_core_seconds=self._foresight.slack_core_seconds(
                start_seconds=turn.start_seconds,
                arrived_seconds=line.arrived_seconds,
                partition=partition,
                work_scale=mind.work_scale,
            ),
        )
        offered = None
        if self._bursting is not None and tenant:
            offered = self._bursting.offered(
                tenant,
                mind.away,
                view,
                work=situation.work,
                segment_seconds=seconds,
                slack_core_seconds=situation.slack_core_seconds,
                cores=self._foresight.cores,
                event_seconds=line.event_seconds,
            )
        choice = _choose(situation, mind, plan, fixed)
        if choice is None:
            return Decided(fixed)
        sending = None
        if offered is not None and self._bursting is not None:
            with_burst = replace(situation, burst=offered.offer.burst)
            wished = _choose(with_burst, mind, plan, fixed)
            if wished is not None and wished.placement is Placement.BURST:
                k = wished.configuration
                core_seconds = float(offered.offer.core_seconds[k])
                if offered.ready:
                    choice, situation = wished, with_burst
                    sending = Sending(
                        tenant, core_seconds, float(offered.offer.seconds[k]), offered.most_seconds, wished.advantage
                    )
                else:
                    self._bursting.want(tenant, core_seconds)
        metrics.DECISIONS.labels(pipeline.name, choice.rule.value).inc()
        report = report_pb2.Decision(
            rule=_RULES[choice.rule],
            configuration=choice.configuration,
            profile_version=mind.fit.version,
            plan_version=0 if view is None else view.version,
            plan_stale=self._plans.stale(view),
            predicted_quality=quality.tolist(),
            value_scale=situation.value_scale,
            estimated_core_seconds=situation.work.tolist(),
            lag_seconds=lag,
            slack_core_seconds=situation.slack_core_seconds,
            work_price=situation.work_price,
            usd_price=0.0 if situation.burst is None else situation.burst.usd_price,
            placement=report_pb2.PLACE_POOL if sending is None else report_pb2.PLACE_BURST,
        )
        return Decided(
            mind.configurations[choice.configuration],
            _pool_work(situation, choice),
            mind,
            choice.configuration,
            float(predicted[choice.configuration]),
            report,
            tuple(features.tolist()),
            sending,
            Weighed(replace(situation, burst=None), plan, fixed, predicted, self._foresight.cores),
        )

    def choose_again(self, decided: Decided, *, lost_seconds: float, reason: str) -> Decided:
        """The next choice for a segment that burst machines did not do: in the pool, with the time that is left."""
        weighed, mind = decided.weighed, decided.mind
        if weighed is None or mind is None or decided.report is None:
            raise ValueError("only a segment that was sent away can come back")
        if decided.sending is not None and reason in _TOO_SLOW:
            mind.away.missed(expected_core_seconds=decided.sending.core_seconds, seconds=lost_seconds)
        lost = lost_seconds * weighed.pool_cores
        situation = replace(weighed.situation, slack_core_seconds=weighed.situation.slack_core_seconds - lost)
        choice = _choose(situation, mind, weighed.plan, weighed.fixed) or by_hand(situation, 0)
        decided.report.rule = _RULES[choice.rule]
        decided.report.configuration = choice.configuration
        decided.report.placement = report_pb2.PLACE_POOL
        decided.report.burst_failure = reason
        return replace(
            decided,
            configuration=mind.configurations[choice.configuration],
            estimated_core_seconds=_pool_work(situation, choice),
            index=choice.configuration,
            predicted=float(weighed.predicted[choice.configuration]),
            sending=None,
        )

    def learn(self, decided: Decided, *, quality: float, core_seconds: float, away: AwaySpent | None = None) -> None:
        """From the segment's result: what predictions miss, what work costs, the content's category."""
        mind = decided.mind
        if mind is None or decided.report is None:
            return
        belief = mind.belief
        belief.used[belief.category, decided.index] += 1
        belief.learn(decided.index, quality - decided.predicted)
        belief.category = int(category(mind.fit.categories.centres, quality, decided.index))
        decided.report.category = belief.category
        if away is not None and decided.sending is not None:
            mind.away.learn(
                estimated=decided.sending.core_seconds / mind.away.scale,
                core_seconds=away.core_seconds,
                seconds=away.seconds,
            )
            return
        unscaled = decided.estimated_core_seconds / mind.work_scale
        mind.work_scale = float(recalibrated(mind.work_scale, unscaled, core_seconds))


def _pool_work(situation: Situation, choice: Choice) -> float:
    """Core-seconds of the pool that the choice takes."""
    if choice.placement is Placement.BURST and situation.burst is not None:
        return float(situation.burst.work[choice.configuration])
    return float(situation.work[choice.configuration])


def _choose(situation: Situation, mind: Mind, plan: plan_pb2.StreamPlan | None, fixed: Configuration) -> Choice | None:
    """None for a fixed configuration that the profile does not know: nothing can be estimated for the guard."""
    policy = plan_pb2.POLICY_FIXED if plan is None else plan.policy
    if plan is not None and plan.refused:
        return by_hand(situation, 0)
    if policy == plan_pb2.POLICY_PRICED:
        return by_prices(situation)
    if policy == plan_pb2.POLICY_SKYSCRAPER and plan is not None:
        category_now = mind.belief.category
        alpha = decode_alpha(plan, configurations=len(mind.configurations))
        return by_plan(situation, alpha[category_now], mind.belief.used[category_now])
    if fixed not in mind.configurations:
        return None
    return by_hand(situation, mind.configurations.index(fixed))
