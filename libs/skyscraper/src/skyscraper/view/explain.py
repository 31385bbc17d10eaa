"""Why a stream runs the configuration that it runs: the choice, its prices and the guard, from one report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from skyscraper.bus.reports import Seen, seconds
from skyscraper.control.guard import allowed
from skyscraper.v1 import plan_pb2, report_pb2, stream_pb2
from skyscraper.view.fits import FitView
from skyscraper.view.pool import PoolView
from skyscraper.view.words import POLICIES, RULES, counted, duration, knobs, number, percent

# Points of the curve of prices over the lag: the width of its drawing.
CURVE_POINTS = 56
# The look-ahead and the table differ by so much before it is worth a sentence.
_SAME_PRICE = 0.02


@dataclass(frozen=True)
class Sources:
    """What is known of the stream; None and empty where nothing is."""

    stream_id: str
    entry: stream_pb2.Stream | None
    plan_version: int | None
    plan: plan_pb2.StreamPlan | None
    pool: PoolView | None
    fit: FitView | None
    """Of the newest decision, else of the plan."""
    published_fits: Sequence[str]
    """Versions of the pipeline's fits on `sky.profiles`."""
    reports: Sequence[Seen]
    """The stream's newest, oldest first."""


@dataclass(frozen=True)
class Choice:
    """One configuration as the decision saw it. Normalised quality is in shares of the dearest's mean times weight."""

    index: int
    configuration: str
    predicted_quality: float
    quality_share: float | None
    core_seconds: float
    value: float
    score: float
    """value − λ · work."""
    allowed: bool
    chosen: bool


@dataclass(frozen=True)
class Guard:
    lag_seconds: float
    limit_seconds: float | None
    cores: float | None
    slack_core_seconds: float
    margin_core_seconds: float | None
    """(limit − lag) × the stream's own cores: before the uncertainty of work is taken off."""


@dataclass(frozen=True)
class Prices:
    work_price: float
    usd_price: float
    clock: str
    """When the slot of the day began."""
    slot: int
    level: int
    levels: int
    table_price: float
    """What the plan's table says for that slot, level and lag."""
    lag_seconds: float
    limit_seconds: float
    over_lag: tuple[float, ...]
    """Of that slot and level, at even steps of the lag up to the limit."""


@dataclass(frozen=True)
class Decided:
    """One line of the list of last decisions."""

    segment: str
    age_seconds: float
    rule: str
    configuration: str
    predicted: float | None
    quality: float
    work_price: float
    lag_seconds: float
    slack_core_seconds: float
    core_seconds: float


@dataclass(frozen=True)
class Explanation:
    stream: str
    summary: tuple[str, ...]
    """Sentences: what was chosen and why, or what is missing and what to do."""
    facts: Mapping[str, str]
    choices: tuple[Choice, ...] = ()
    prices: Prices | None = None
    guard: Guard | None = None
    last: tuple[Decided, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def explain(sources: Sources, now_seconds: float) -> Explanation:
    """All that is known about the stream's newest decision."""
    decided = [one for one in sources.reports if one.report.HasField("decision")]
    last = tuple(_decided(one, sources.fit, now_seconds) for one in reversed(decided))
    facts = _facts(sources, now_seconds)
    if not decided:
        return Explanation(sources.stream_id, tuple(_missing(sources)), facts)
    seen = decided[-1]
    choices = _choices(seen.report, sources.fit)
    guard = _guard(seen.report.decision, sources)
    prices = _prices(seen, sources.pool)
    summary = [*_why(seen, choices, guard, sources), *_warnings(sources, now_seconds)]
    return Explanation(sources.stream_id, tuple(summary), facts, choices, prices, guard, last)


def _choices(report: report_pb2.SegmentReport, fit: FitView | None) -> tuple[Choice, ...]:
    decision = report.decision
    quality, work = list(decision.predicted_quality), list(decision.estimated_core_seconds)
    may = set(allowed(work, decision.slack_core_seconds))
    full = fit.dearest_quality if fit is not None else 0.0
    found = []
    for index, (q, w) in enumerate(zip(quality, work, strict=False)):
        if fit is not None and index < len(fit.configurations):
            name = knobs(fit.configurations[index], fit.varying)
        else:
            name = knobs(report.configuration) if index == decision.configuration else f"number {index}"
        value = max(q, 0.0) * decision.value_scale
        found.append(
            Choice(
                index,
                name,
                q,
                q / full if full > 0 else None,
                w,
                value,
                value - decision.work_price * w,
                index in may,
                index == decision.configuration,
            )
        )
    return tuple(found)


def _guard(decision: report_pb2.Decision, sources: Sources) -> Guard:
    limit = sources.pool.limit_seconds if sources.pool is not None else None
    cores = sources.plan.cores if sources.plan is not None else None
    margin = (limit - decision.lag_seconds) * cores if limit is not None and cores is not None else None
    return Guard(decision.lag_seconds, limit, cores, decision.slack_core_seconds, margin)


def _prices(seen: Seen, pool: PoolView | None) -> Prices | None:
    if pool is None:
        return None
    decision = seen.report.decision
    # Prices are by the content's own time: a segment that waited for hours is priced by when it was filmed.
    slot = pool.slot(seconds(seen.report.event_time))
    return Prices(
        decision.work_price,
        decision.usd_price,
        pool.clock(slot),
        slot,
        pool.level,
        len(pool.edges) + 1,
        pool.price_at(slot, pool.level, decision.lag_seconds),
        decision.lag_seconds,
        pool.limit_seconds,
        tuple(float(one) for one in pool.prices_over_lag(slot, pool.level, CURVE_POINTS)),
    )


def _why(seen: Seen, choices: Sequence[Choice], guard: Guard, sources: Sources) -> list[str]:
    report, decision = seen.report, seen.report.decision
    chosen = next((one for one in choices if one.chosen), None)
    shown = chosen.configuration if chosen is not None else knobs(report.configuration)
    which = f"configuration {decision.configuration} ({shown})"
    count = sum(one.allowed for one in choices)
    # Of all, whether the guard allows them or not: what prices alone would have taken.
    dearer = max(choices, key=lambda one: one.score, default=None)
    rule = decision.rule
    if rule == report_pb2.RULE_FIXED and sources.plan is not None and sources.plan.refused:
        return [f"It runs {which}, the cheapest, after all others."]
    if rule == report_pb2.RULE_FIXED:
        return [f"It runs the fixed configuration of its own entry ({shown}).", *_missing(sources)]
    told = [f"It runs {which}"]
    if rule == report_pb2.RULE_PRICED:
        of_all = "all" if count == len(choices) else f"the {count} of {len(choices)}"
        told[0] += (
            f": of {of_all} configurations that the guard allows it leaves the most value when its work is paid for at "
            f"λ = {number(decision.work_price)} per core-second."
        )
    elif rule == report_pb2.RULE_PLANNED:
        told[0] += (
            f", because its share is the furthest behind the plan's for content of category {decision.category} "
            "(the paper's switcher)."
        )
    elif rule == report_pb2.RULE_GUARDED:
        told[0] += (
            f", the best of the {counted(count, 'configuration')} that the guard allows: it has room for "
            f"{number(decision.slack_core_seconds)} core-seconds."
        )
        if dearer is not None and not dearer.chosen:
            told.append(
                f"By prices it would have been configuration {dearer.index} ({dearer.configuration}), which takes "
                f"{number(dearer.core_seconds)}."
            )
    elif rule == report_pb2.RULE_FLOOR:
        over = f" of {duration(guard.limit_seconds)}" if guard.limit_seconds is not None else ""
        told[0] += (
            f", the cheapest: with a lag of {duration(guard.lag_seconds)} not even that fits the limit{over}. The "
            "backlog may run out of the buffer: add cores, raise retention, or pause streams."
        )
    else:
        told[0] += "; the decoder did not say why."
    return told


def _warnings(sources: Sources, now_seconds: float) -> list[str]:
    found = []
    newest = sources.reports[-1]
    decision = newest.report.decision
    age = now_seconds - newest.committed_seconds
    if age > 60:
        found.append(f"That was {duration(age)} ago: nothing has been reported since. See `skyscraper top --once`.")
    if decision.plan_stale or (sources.pool is not None and sources.pool.stale(now_seconds)):
        old = f" (made {duration(sources.pool.age_seconds(now_seconds))} ago)" if sources.pool is not None else ""
        found.append(f"The plan is stale{old}: its prices still hold, but is the tuner running?")
    plan = sources.plan
    if plan is not None and plan.refused:
        found.append(f"The stream is not admitted: {plan.refusal or 'the plan does not say why.'}")
    if plan is not None and plan.drifted:
        found.append(
            f"Its content has drifted: predictions are off {plan.drift_error:.1f} times as much (squared) as in "
            "training. Fit a profile on newer footage: `skyscraper fit`."
        )
    if plan is not None and decision.profile_version and plan.profile_version not in ("", decision.profile_version):
        found.append(f"The plan already wants profile {plan.profile_version}; this was decided with another.")
    return found


def _missing(sources: Sources) -> list[str]:
    """What keeps the stream from being controlled, in the order in which it is needed."""
    entry, name = sources.entry, sources.stream_id
    if entry is None and not sources.reports:
        return [f"No stream {name} is registered. Publish one: `skyscraper publish SOURCE --stream {name}`."]
    if entry is not None and entry.state == stream_pb2.STREAM_STATE_PAUSED:
        return ["The stream is paused."]
    told = []
    if not sources.reports:
        told.append(
            "None of its segments was processed yet: is a decoder running (`python -m skyscraper_decoder`), and does "
            "the camera publish?"
        )
    if not sources.published_fits:
        pipeline = sources.plan.pipeline if sources.plan is not None else entry.pipeline if entry is not None else "?"
        told.append(
            f"No profile of {pipeline} with a fit is published, so there is nothing to choose from: record a trace "
            "(`skyscraper trace record`), learn from it (`skyscraper fit`), and put it in force "
            "(`skyscraper profile publish`)."
        )
    elif sources.plan is None:
        told.append(
            "No plan names it: is the tuner running (`python -m skyscraper_tuner`)? Until then it keeps its fixed "
            "configuration."
        )
    elif sources.plan.policy == plan_pb2.POLICY_FIXED:
        told.append("Its plan says `fixed`: the stream's own entry decides, as asked for.")
    elif sources.reports and not sources.reports[-1].report.HasField("decision"):
        told.append("There is a plan, but no decision was reported with it yet; it applies from the next segment on.")
    return told


def _facts(sources: Sources, now_seconds: float) -> dict[str, str]:
    """Short facts, name to words."""
    entry, plan, pool, fit = sources.entry, sources.plan, sources.pool, sources.fit
    facts: dict[str, str] = {}
    if entry is not None:
        state = "paused" if entry.state == stream_pb2.STREAM_STATE_PAUSED else "active"
        facts["stream"] = (
            f"{state}, pipeline {entry.pipeline or '?'}, partition {entry.partition}, weight {entry.weight or 1:g}"
            + (f", tenant {entry.tenant}" if entry.tenant else "")
        )
        if entry.source:
            facts["source"] = entry.source
        if entry.configuration:
            facts["fixed configuration"] = ", ".join(f"{k}={v}" for k, v in sorted(entry.configuration.items()))
    else:
        facts["stream"] = "not registered"
    if plan is not None:
        facts["plan"] = (
            f"version {sources.plan_version}, policy {POLICIES[plan.policy] or '?'}, {plan.cores:g} cores of its own"
            + (f", work {plan.work_scale:.2f} times its estimate" if plan.work_scale > 0 else "")
        )
    else:
        facts["plan"] = "none for this stream"
    if pool is not None:
        stale = ", STALE" if pool.stale(now_seconds) else ""
        facts["pool plan"] = (
            f"version {pool.version}, {duration(pool.age_seconds(now_seconds))} old (good for "
            f"{duration(pool.lease_seconds)}{stale}), {pool.cores:g} cores"
        )
    if fit is not None:
        facts["profile"] = f"{fit.version}, {len(fit.configurations)} configurations, {fit.categories} categories"
    elif sources.published_fits:
        facts["profile"] = f"published: {', '.join(sources.published_fits)}"
    else:
        facts["profile"] = "none published"
    decision = next((one.report.decision for one in reversed(sources.reports) if one.report.HasField("decision")), None)
    if decision is not None:
        facts["content"] = f"category {decision.category}" + _category_share(plan, decision.category)
    if plan is not None and plan.drift_error > 0:
        facts["drift"] = f"{plan.drift_error:.2f} of training's squared error" + (" (DRIFTED)" if plan.drifted else "")
    if plan is not None and plan.shadow_version:
        facts["on trial"] = f"profile {plan.shadow_version}, {counted(plan.shadow_segments, 'segment')} so far"
    return facts


def _category_share(plan: plan_pb2.StreamPlan | None, category: int) -> str:
    if plan is None or not 0 <= category < len(plan.category_share):
        return ""
    return f", {percent(plan.category_share[category])} of the coming window by the forecast"


def _decided(seen: Seen, fit: FitView | None, now_seconds: float) -> Decided:
    report, decision = seen.report, seen.report.decision
    k = decision.configuration
    return Decided(
        report.segment_id.partition("/")[2] or report.segment_id,
        max(0.0, now_seconds - seen.committed_seconds),
        RULES[decision.rule],
        knobs(report.configuration, fit.varying if fit is not None else None),
        decision.predicted_quality[k] if 0 <= k < len(decision.predicted_quality) else None,
        report.quality,
        decision.work_price,
        decision.lag_seconds,
        decision.slack_core_seconds,
        report.decoder_core_seconds + report.inference_core_seconds,
    )


def price_words(prices: Prices) -> str:
    """Where λ comes from, in a sentence or two."""
    told = (
        f"λ = {number(prices.work_price)} per core-second at a lag of {duration(prices.lag_seconds)}. The plan's table "
        f"for content of {prices.clock} (slot {prices.slot}) at level {prices.level + 1} of {prices.levels}, where the "
        f"planner last saw it, says {number(prices.table_price)}"
    )
    most = max(prices.work_price, prices.table_price)
    if most > 0 and abs(prices.work_price - prices.table_price) > _SAME_PRICE * most:
        return told + "; the decoder has looked into its backlog since, and corrected it."
    return told + "."


def guard_words(guard: Guard) -> str:
    """The guard's arithmetic in words."""
    if guard.limit_seconds is not None and guard.lag_seconds > guard.limit_seconds:
        over = duration(guard.lag_seconds - guard.limit_seconds)
        return (
            f"a lag of {duration(guard.lag_seconds)} is {over} over the limit of {duration(guard.limit_seconds)}; room "
            f"for {number(guard.slack_core_seconds)} core-seconds: only the cheapest."
        )
    told = f"lag {duration(guard.lag_seconds)}"
    if guard.limit_seconds is not None:
        told += f" of a limit of {duration(guard.limit_seconds)}"
    if guard.margin_core_seconds is not None and guard.limit_seconds is not None and guard.cores is not None:
        told += (
            f": {duration(guard.limit_seconds - guard.lag_seconds)} left on {guard.cores:g} cores of its own are "
            f"{number(guard.margin_core_seconds)} core-seconds"
        )
    return told + (
        f"; allowed after the uncertainty of work and until the next segment's turn: "
        f"{number(guard.slack_core_seconds)} core-seconds."
    )
