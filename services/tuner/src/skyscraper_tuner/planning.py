"""From all that is known to the plans of the pool and of every stream: pure functions, the same result every time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from skyscraper.bus.plans import encode_pool
from skyscraper.bus.topics import POOL_KEY
from skyscraper.control.admission import Candidate, admit
from skyscraper.control.drift import Shadow
from skyscraper.control.errors import Infeasible
from skyscraper.control.joint import JointPlan, StreamPast, joint_plan
from skyscraper.control.plan import StreamForecast, plan
from skyscraper.profile.arrays import to_proto
from skyscraper.profile.fit import Fit
from skyscraper.profile.forecast import Forecaster
from skyscraper.profile.refit import Samples
from skyscraper.v1 import digest_pb2, plan_pb2

from skyscraper_tuner.outlook import Outlook, outlook
from skyscraper_tuner.past import Days, blended, by_stream, labels_of, lay_out, samples_of
from skyscraper_tuner.trial import Trial, judged

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Registered:
    """A stream of sky.streams that wants to be processed. `order`: the smaller, the longer it has been there."""

    stream_id: str
    pipeline: str
    tenant: str
    weight: float
    order: int


@dataclass(frozen=True)
class Quota:
    cores: float | None = None
    usd_per_day: float = 0.0


@dataclass(frozen=True)
class Terms:
    """What plans are made for."""

    cores: float
    limit_seconds: float
    day_seconds: float
    slot_seconds: float
    lease_seconds: float
    history_days: int
    policy: plan_pb2.Policy.ValueType
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """By tenant; one without an entry may use the whole pool and no dollars."""
    burst_usd_per_core_second: float | None = None
    """What was paid lately, or is expected; None: what it was when the profile was made."""


@dataclass(frozen=True)
class Inputs:
    """All that plans depend on."""

    now_seconds: float
    """Since 1970."""
    terms: Terms
    streams: Sequence[Registered]
    fits: Mapping[str, Fit]
    """In force, by pipeline."""
    compatible: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By pipeline, versions of fits whose decisions the one in force can learn from."""
    trials: Mapping[str, Trial] = field(default_factory=dict)
    digests: Mapping[str, digest_pb2.StreamDigest] = field(default_factory=dict)
    slots: Sequence[digest_pb2.SlotDigest] = ()
    forecasters: Mapping[str, Forecaster] = field(default_factory=dict)
    """By stream, where the profile's was refined."""


@dataclass(frozen=True)
class Made:
    """Plans by key of sky.plans, without their versions, and why there are no others."""

    plans: dict[bytes, plan_pb2.Plan]
    joint: JointPlan | None
    unplanned: dict[str, str]
    """By stream, a word for the metric."""
    shadows: dict[str, Shadow]
    promoted: dict[str, Fit]
    """By pipeline, the trial that took over."""
    outlooks: dict[str, Outlook]


@dataclass(frozen=True)
class _Known:
    """One stream with everything looked up."""

    stream: Registered
    fit: Fit
    digest: digest_pb2.StreamDigest
    past: StreamPast
    outlook: Outlook


def make_plans(inputs: Inputs) -> Made:
    """One plan for the pool and one for every stream whose pipeline has a fit."""
    shadows, promoted = _trials(inputs)
    inputs = replace(inputs, fits={**inputs.fits, **promoted})
    known, unplanned = _look_up(inputs)
    if not known:
        return Made({}, None, unplanned, shadows, promoted, {})
    terms = inputs.terms
    refused = _beyond_quota(known, terms)
    candidates = [one for one in known if one.stream.stream_id not in refused]
    joint = None
    segment_seconds = float(np.median([one.fit.segment_seconds for one in known]))
    try:
        if candidates:
            joint = joint_plan(
                [one.past for one in candidates],
                cores=terms.cores,
                segment_seconds=segment_seconds,
                slot_seconds=terms.slot_seconds,
                day_seconds=terms.day_seconds,
                limit_seconds=terms.limit_seconds,
                usd_per_day=sum(
                    _quota(terms, tenant).usd_per_day for tenant in {one.stream.tenant for one in candidates}
                ),
            )
            refused |= joint.refused
    except Infeasible as error:
        refused |= {one.stream.stream_id: str(error) for one in candidates}
    plans = {}
    if joint is not None:
        pool = encode_pool(
            joint.price,
            cores=terms.cores,
            limit_seconds=terms.limit_seconds,
            day_seconds=terms.day_seconds,
            slot_seconds=terms.slot_seconds,
            segment_seconds=segment_seconds,
            usd_per_day=sum(_quota(terms, tenant).usd_per_day for tenant in {one.stream.tenant for one in candidates}),
            refused=refused,
        )
        plans[POOL_KEY] = _plan(inputs, pool=pool)
    followed = _papers_plan([one for one in known if one.stream.stream_id not in refused], terms, segment_seconds)
    for one in known:
        stream = _stream_plan(one, terms, joint, refused, followed, inputs, shadows)
        plans[one.stream.stream_id.encode()] = _plan(inputs, stream=stream)
    outlooks = {one.stream.stream_id: one.outlook for one in known}
    return Made(plans, joint, unplanned, shadows, promoted, outlooks)


def _trials(inputs: Inputs) -> tuple[dict[str, Shadow], dict[str, Fit]]:
    """How each trial stands, and those that take over now."""
    by_id = {one.stream_id: one.pipeline for one in inputs.streams}
    shadows, promoted = {}, {}
    for pipeline, trial in inputs.trials.items():
        fit = inputs.fits.get(pipeline)
        if fit is None:
            continue
        mine = [slot for slot in inputs.slots if by_id.get(slot.stream_id) == pipeline]
        shadows[pipeline] = judged(fit, trial, mine, inputs.compatible.get(pipeline, (fit.version,)))
        if shadows[pipeline].promoted:
            promoted[pipeline] = trial.fit
    return shadows, promoted


def _look_up(inputs: Inputs) -> tuple[list[_Known], dict[str, str]]:
    terms = inputs.terms
    of_stream = by_stream(slot for slot in inputs.slots if slot.slot_seconds == terms.slot_seconds)
    days = lay_out(
        (slot for slots in of_stream.values() for slot in slots),
        day_seconds=terms.day_seconds,
        history_days=terms.history_days,
    )
    known, unplanned = [], {}
    for stream in sorted(inputs.streams, key=lambda one: (one.order, one.stream_id)):
        fit = inputs.fits.get(stream.pipeline)
        if fit is None:
            unplanned[stream.stream_id] = "no_profile"
            continue
        if fit.mean_quality[-1] <= 0:
            # Nothing to tell a unit of quality by.
            unplanned[stream.stream_id] = "no_quality"
            continue
        slots = of_stream.get(stream.stream_id, [])
        digest = inputs.digests.get(stream.stream_id, digest_pb2.StreamDigest(drift_error=1.0, work_scale=1.0))
        forecaster = inputs.forecasters.get(stream.stream_id, fit.forecaster)
        labels = labels_of(slots, fit.categories.count)
        seen = outlook(fit, forecaster, labels, day_seconds=terms.day_seconds)
        versions = {*inputs.compatible.get(stream.pipeline, ()), fit.version}
        past = _past(stream, fit, digest, samples_of(slots, fit, versions), days, terms)
        known.append(_Known(stream, fit, digest, past, seen))
    return known, unplanned


def _past(
    stream: Registered, fit: Fit, digest: digest_pb2.StreamDigest, samples: Samples, days: Days, terms: Terms
) -> StreamPast:
    predicted, truth, seconds = blended(fit, samples, days)
    work = fit.work.estimate(fit.segment_seconds) * (digest.work_scale or 1.0)
    usd = _burst_usd(fit, terms.burst_usd_per_core_second)
    may_burst = _quota(terms, stream.tenant).usd_per_day > 0 and bool((usd > 0).all())
    return StreamPast(
        stream.stream_id,
        predicted,
        truth,
        seconds,
        fit.segment_seconds,
        work,
        value_scale=stream.weight / float(fit.mean_quality[-1]),
        weight=stream.weight,
        burst_usd=usd if may_burst else None,
        uncertainty=float(fit.work.uncertainty[0]),
    )


def _burst_usd(fit: Fit, usd_per_core_second: float | None) -> Floats:
    """[K] dollars of a segment with as much as possible on burst machines; at the profile's price if none is given."""
    found = np.zeros(len(fit.placements))
    for k, placements in enumerate(fit.placements):
        most = min(placements, key=lambda one: one.pool_core_seconds)
        away = float(fit.operator_work[k].sum()) - most.pool_core_seconds
        found[k] = most.usd if usd_per_core_second is None else away * usd_per_core_second
    return found


def _quota(terms: Terms, tenant: str) -> Quota:
    return terms.quotas.get(tenant, Quota())


def _beyond_quota(known: Sequence[_Known], terms: Terms) -> dict[str, str]:
    """Streams that their own tenant's quota does not hold, with the arithmetic."""
    refused: dict[str, str] = {}
    for tenant in sorted({one.stream.tenant for one in known}):
        cores = _quota(terms, tenant).cores
        if cores is None:
            continue
        mine = [one for one in known if one.stream.tenant == tenant]
        found = admit(
            [Candidate(one.stream.stream_id, one.past.floor_cores, one.stream.weight) for one in mine], cores=cores
        )
        refused |= {name: f"quota of tenant {tenant or '(none)'}: {why}" for name, why in found.refused.items()}
    return refused


def _papers_plan(known: Sequence[_Known], terms: Terms, segment_seconds: float) -> dict[str, tuple[Floats, float]]:
    """α [C,K] and the expected quality of every stream, jointly (supplement's equations 7 to 9). Without dollars: the
    prices place work on burst machines, the paper's placement is the decoder's."""
    if not known:
        return {}
    forecasts = []
    for one in known:
        # A round holds so many segments of this stream.
        per_round = segment_seconds / one.fit.segment_seconds
        work = one.past.work_core_seconds * per_round
        weight = one.past.value_scale * per_round
        forecasts.append(
            StreamForecast(one.fit.categories.centres, one.outlook.share, work, np.zeros_like(work), weight)
        )
    try:
        made = plan(forecasts, work_core_seconds=terms.cores * segment_seconds, usd=0.0)
    except Infeasible:
        return {}
    return {
        one.stream.stream_id: (
            alpha,
            float((alpha * one.fit.categories.centres * one.outlook.share[:, None]).sum()),
        )
        for one, alpha in zip(known, made.alpha, strict=True)
    }


def _stream_plan(
    one: _Known,
    terms: Terms,
    joint: JointPlan | None,
    refused: Mapping[str, str],
    followed: Mapping[str, tuple[Floats, float]],
    inputs: Inputs,
    shadows: Mapping[str, Shadow],
) -> plan_pb2.StreamPlan:
    name = one.stream.stream_id
    message = plan_pb2.StreamPlan(
        stream_id=name,
        pipeline=one.stream.pipeline,
        profile_version=one.fit.version,
        policy=terms.policy,
        value_scale=one.past.value_scale,
        cores=joint.cores_by_stream.get(name, 0.0) if joint is not None else 0.0,
        work_scale=one.digest.work_scale or 1.0,
        category_share=one.outlook.share,
        refused=name in refused,
        refusal=refused.get(name, ""),
        drift_error=one.digest.drift_error if one.digest.profile_version == one.fit.version else 1.0,
        drifted=(one.digest.drifted and one.digest.profile_version == one.fit.version) or one.outlook.drifted,
        burst_usd=() if one.past.burst_usd is None else one.past.burst_usd,
    )
    if name in followed:
        alpha, quality = followed[name]
        message.alpha.CopyFrom(to_proto(alpha, "<f4"))
        message.expected_quality = quality
    if joint is not None and terms.policy == plan_pb2.POLICY_PRICED:
        message.expected_quality = joint.expected_quality.get(name, 0.0)
    trial = inputs.trials.get(one.stream.pipeline)
    if trial is not None and trial.fit.version != one.fit.version:
        message.shadow_version = trial.fit.version
        message.shadow_segments = shadows[one.stream.pipeline].segments
        message.shadow_since_time.FromNanoseconds(round(trial.since_seconds * 1e9))
    return message


def _plan(
    inputs: Inputs, *, pool: plan_pb2.PoolPlan | None = None, stream: plan_pb2.StreamPlan | None = None
) -> plan_pb2.Plan:
    message = plan_pb2.Plan(lease_seconds=inputs.terms.lease_seconds, pool=pool, stream=stream)
    message.made_time.FromNanoseconds(round(inputs.now_seconds * 1e9))
    return message
