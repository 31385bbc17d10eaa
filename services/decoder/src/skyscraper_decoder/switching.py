"""The switch: which configuration a segment gets, and what its report teaches.

The decisions themselves are in `skyscraper.control`; here is put together what they rest on: the plan, the profile, the
buffer, the last reports.
"""

from __future__ import annotations

from dataclasses import dataclass

from skyscraper.bus.plans import decode_alpha
from skyscraper.control.live import Choice, Rule, Situation, by_hand, by_plan, by_prices
from skyscraper.control.switcher import category
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.control.work import recalibrated
from skyscraper.pipeline import Configuration, Pipeline
from skyscraper.profile.predict import AHEAD_SEGMENTS
from skyscraper.v1 import plan_pb2, report_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.ahead import BEHIND_SEGMENTS, Ahead, Seen
from skyscraper_decoder.foresight import Foresight
from skyscraper_decoder.minds import Mind, Minds
from skyscraper_decoder.plans import PlanBook
from skyscraper_decoder.predicting import predict_one
from skyscraper_decoder.turnstile import Turn

_RULES = {
    Rule.FIXED: report_pb2.RULE_FIXED,
    Rule.PRICED: report_pb2.RULE_PRICED,
    Rule.PLANNED: report_pb2.RULE_PLANNED,
    Rule.GUARDED: report_pb2.RULE_GUARDED,
    Rule.FLOOR: report_pb2.RULE_FLOOR,
}


@dataclass(frozen=True)
class Decided:
    """A configuration, and what its report says of the choice. Without `mind` nothing is known of the pipeline's
    work and quality: no report, nothing to learn."""

    configuration: Configuration
    estimated_core_seconds: float = 0.0
    mind: Mind | None = None
    index: int = 0
    predicted: float = 0.0
    """Of the chosen configuration, before its residual."""
    report: report_pb2.Decision | None = None
    features: tuple[float, ...] = ()


class Switcher:
    """One for the process. `choose` and `learn` are called by a stream's own lane."""

    def __init__(self, plans: PlanBook, ahead: Ahead, minds: Minds, foresight: Foresight) -> None:
        self._plans = plans
        self._ahead = ahead
        self._minds = minds
        self._foresight = foresight

    def refused(self, stream_id: str) -> bool:
        """Whether the stream is not admitted, and so comes after all others."""
        plan = self._plans.stream(stream_id)
        return plan is not None and plan.refused

    def choose(self, line: Seen, partition: int, pipeline: Pipeline, fixed: Configuration, turn: Turn) -> Decided:
        """For the segment of `line`, at its turn."""
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
        choice = _choose(situation, mind, plan, fixed)
        if choice is None:
            return Decided(fixed)
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
        )
        return Decided(
            mind.configurations[choice.configuration],
            float(situation.work[choice.configuration]),
            mind,
            choice.configuration,
            float(predicted[choice.configuration]),
            report,
            tuple(features.tolist()),
        )

    def learn(self, decided: Decided, *, quality: float, core_seconds: float) -> None:
        """From the segment's result: what predictions miss, what work costs, the content's category."""
        mind = decided.mind
        if mind is None or decided.report is None:
            return
        belief = mind.belief
        belief.used[belief.category, decided.index] += 1
        belief.learn(decided.index, quality - decided.predicted)
        belief.category = int(category(mind.fit.categories.centres, quality, decided.index))
        decided.report.category = belief.category
        unscaled = decided.estimated_core_seconds / mind.work_scale
        mind.work_scale = float(recalibrated(mind.work_scale, unscaled, core_seconds))


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
