"""The fleet at a glance: one row per stream, those that need attention first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import Any

from skyscraper.bus.headroom import RECORD_OVERHEAD_BYTES
from skyscraper.bus.offsets import Bounds
from skyscraper.control.headroom import Backlog, Retention, headroom_seconds
from skyscraper.v1 import plan_pb2, report_pb2, stream_pb2
from skyscraper.view.fits import FitView
from skyscraper.view.fleet import WINDOW_SECONDS, Fleet, StreamLately, published_seconds
from skyscraper.view.pool import PoolView
from skyscraper.view.words import RULES, counted, duration, knobs, number, usd

# "Now": long enough for some segments, short enough to follow a rush.
_NOW_SECONDS = 120.0
# Work per wall second is averaged so long: a backlog that is worked off comes in bursts.
_WORK_SECONDS = 300.0
# A decoder that has work and reports nothing for so long stands still: even a dear segment takes seconds.
_STALLED_SECONDS = 60.0
# A camera that published nothing for so long is away; publishers cut segments of about 2 s.
_SILENT_SECONDS = 60.0
# Of a stream that has processed nothing yet: what publishers cut.
_SEGMENT_SECONDS = 2.0
# Below this part of the buffer somebody should look, as the alerts do.
_HEADROOM_SHORT = 0.25
# A mean that is so far below the plan's is no noise.
_BELOW_TARGET = 0.8


class Attention(IntEnum):
    """Why a stream stands where it stands in the table, the most urgent first."""

    LOST = 0
    FLOOR = 1
    STALLED = 2
    HEADROOM = 3
    DEAD_LETTERS = 4
    REFUSED = 5
    DRIFT = 6
    GUARDED = 7
    BELOW_TARGET = 8
    SILENT = 9
    WAITING = 10
    OK = 11
    PAUSED = 12


@dataclass(frozen=True)
class Sources:
    """Everything the table is made from, as of now. By stream id, but where said otherwise."""

    streams: Mapping[str, stream_pb2.Stream]
    plans: Mapping[str, plan_pb2.StreamPlan]
    pool: PoolView | None
    fits: Mapping[str, FitView]
    """By stream id: the fit of its newest decision, or of its plan."""
    bounds: Mapping[int, Bounds]
    """Of `sky.segments`, by partition; empty while Kafka does not answer."""
    retention: Retention
    newest_plan_version: int = 0


@dataclass(frozen=True)
class Row:
    """One stream. Qualities as a share of what the dearest configuration reaches on average; None is not known."""

    stream: str
    pipeline: str
    attention: Attention
    state: str
    """In words: what asks for attention, or `ok`."""
    category: int | None
    configuration: str
    rule: str
    quality_now: float | None
    quality_hour: float | None
    quality_target: float | None
    quality_raw: float | None
    """Of late, in the pipeline's own unit."""
    lag_seconds: float | None
    backlog_segments: int
    backlog_seconds: float
    headroom_seconds: float
    cores: float
    """Core-seconds per second of wall time."""
    work_share: float | None
    """Of the pool's cores."""
    drift_error: float | None
    drifted: bool
    lost: int
    """Segments that retention took in the last hour."""
    dead_lettered: int

    def as_json(self) -> dict[str, Any]:
        told = asdict(self) | {"attention": self.attention.name.lower()}
        # JSON knows no infinity.
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in told.items()}


@dataclass(frozen=True)
class Head:
    """What is said once, above the table."""

    streams: int
    need_attention: int
    cores_used: float
    cores: float | None
    work_price: float | None
    """λ of the newest decision."""
    plan_version: int | None
    plan_age_seconds: float | None
    plan_stale: bool
    usd_planned: float | None
    usd_per_day: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Top:
    head: Head
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        return {"pool": self.head.as_json(), "streams": [row.as_json() for row in self.rows]}


def top(fleet: Fleet, sources: Sources, now_seconds: float) -> Top:
    """The table as of now, sorted by what needs attention."""
    names = sorted(set(sources.streams) | set(fleet.streams))
    since = now_seconds if fleet.first_seconds is None else fleet.first_seconds
    rows = [_row(name, fleet.streams.get(name), sources, since, now_seconds) for name in names]
    rows.sort(key=lambda row: (row.attention, row.headroom_seconds, -(row.lag_seconds or 0.0), row.stream))
    return Top(_head(rows, fleet, sources, now_seconds), tuple(rows))


def _head(rows: Iterable[Row], fleet: Fleet, sources: Sources, now_seconds: float) -> Head:
    rows = list(rows)
    decided = [
        one.processed for one in fleet.streams.values() if one.processed and one.processed.report.HasField("decision")
    ]
    newest = max(decided, key=lambda one: one.committed_seconds, default=None)
    pool = sources.pool
    return Head(
        streams=len(rows),
        need_attention=sum(row.attention < Attention.WAITING for row in rows),
        cores_used=sum(row.cores for row in rows),
        cores=None if pool is None else pool.cores,
        work_price=None if newest is None else newest.report.decision.work_price,
        plan_version=None if pool is None else max(pool.version, sources.newest_plan_version),
        plan_age_seconds=None if pool is None else pool.age_seconds(now_seconds),
        plan_stale=pool is not None and pool.stale(now_seconds),
        usd_planned=None if pool is None else pool.usd_planned(now_seconds),
        usd_per_day=None if pool is None else pool.usd_per_day,
    )


def _row(name: str, lately: StreamLately | None, sources: Sources, since: float, now_seconds: float) -> Row:
    """`since`: when the oldest report that was read was committed."""
    entry, plan, fit = sources.streams.get(name), sources.plans.get(name), sources.fits.get(name)
    if lately is None:
        # Not even its partition is known where nobody registered it.
        lately = StreamLately(name, -1 if entry is None else entry.partition)
    seen = lately.processed
    report = report_pb2.SegmentReport() if seen is None else seen.report
    decision = report.decision
    hour = lately.last(WINDOW_SECONDS, now_seconds)
    short = lately.last(_NOW_SECONDS, now_seconds)
    full = fit.dearest_quality if fit is not None else 0.0

    def share(quality: float | None) -> float | None:
        return quality / full if quality is not None and full > 0 else None

    waiting, low = _waiting(lately, sources)
    every = report.duration_seconds or _SEGMENT_SECONDS
    # The oldest waiting segment was published about one segment after the newest processed one.
    age = max(0.0, now_seconds - published_seconds(report) - every) if waiting and seen is not None else 0.0
    mean_bytes = hour.segment_bytes / max(1, hour.processed + hour.dead_lettered)
    backlog = Backlog(age, int(waiting * (mean_bytes + RECORD_OVERHEAD_BYTES)), lately.densest_bytes_per_second)
    recent = lately.last(_WORK_SECONDS, now_seconds)
    # At least some seconds: what was reported in the first of them took longer than that.
    cores = recent.core_seconds / max(10.0, now_seconds - max(recent.since_seconds, since))
    lost = hour.lost + low
    row = Row(
        stream=name,
        pipeline=report.pipeline or (entry.pipeline if entry is not None else ""),
        attention=Attention.OK,
        state="ok",
        category=decision.category if report.HasField("decision") and fit is not None else None,
        configuration=knobs(report.configuration, fit.varying if fit is not None else None),
        rule=RULES[decision.rule] if report.HasField("decision") else ("fixed" if seen is not None else ""),
        quality_now=share(short.mean_quality),
        quality_hour=share(hour.mean_quality),
        quality_target=share(plan.expected_quality) if plan is not None and plan.expected_quality > 0 else None,
        quality_raw=short.mean_quality if short.processed else hour.mean_quality,
        lag_seconds=None if seen is None else (age or decision.lag_seconds),
        backlog_segments=waiting,
        backlog_seconds=waiting * every,
        headroom_seconds=headroom_seconds(backlog, sources.retention),
        cores=cores,
        work_share=cores / sources.pool.cores if sources.pool is not None and sources.pool.cores > 0 else None,
        drift_error=plan.drift_error if plan is not None and plan.drift_error > 0 else None,
        drifted=plan is not None and plan.drifted,
        lost=lost,
        dead_lettered=hour.dead_lettered,
    )
    attention, state = _state(row, lately, entry, plan, sources, now_seconds)
    return replace(row, attention=attention, state=state)


def _waiting(lately: StreamLately, sources: Sources) -> tuple[int, int]:
    """Segments that wait, and those that retention took before the decoder came to say so."""
    bounds = sources.bounds.get(lately.partition)
    if bounds is None:
        return 0, 0
    if lately.newest is None:
        # Nothing was ever reported: all that Kafka holds waits.
        return bounds.high - bounds.low, 0
    lost = max(0, bounds.low - lately.next_offset)
    return max(0, bounds.high - lately.next_offset - lost), lost


def _state(
    row: Row,
    lately: StreamLately,
    entry: stream_pb2.Stream | None,
    plan: plan_pb2.StreamPlan | None,
    sources: Sources,
    now_seconds: float,
) -> tuple[Attention, str]:
    silent = None if lately.newest is None else now_seconds - lately.newest.committed_seconds
    if row.lost:
        return Attention.LOST, f"lost {row.lost}"
    if entry is not None and entry.state == stream_pb2.STREAM_STATE_PAUSED:
        return Attention.PAUSED, "paused"
    if row.rule == "floor":
        return Attention.FLOOR, "over limit"
    if silent is not None and row.backlog_segments and silent > _STALLED_SECONDS:
        return Attention.STALLED, "stalled"
    if silent is None and row.backlog_segments:
        return Attention.STALLED, "not decoded"
    if row.headroom_seconds < _HEADROOM_SHORT * _whole(lately, sources.retention):
        return Attention.HEADROOM, "headroom"
    if row.dead_lettered:
        return Attention.DEAD_LETTERS, f"dead {row.dead_lettered}"
    if plan is not None and plan.refused:
        return Attention.REFUSED, "refused"
    if row.drifted:
        return Attention.DRIFT, "drifted"
    if silent is None:
        return Attention.WAITING, "no report" if entry is not None else "unknown"
    if silent > _SILENT_SECONDS:
        return Attention.SILENT, f"silent {duration(silent)}"
    if row.rule == "guarded":
        return Attention.GUARDED, "guarded"
    if row.quality_hour is not None and row.quality_hour < _BELOW_TARGET * (row.quality_target or 0.0):
        return Attention.BELOW_TARGET, "below plan"
    return Attention.OK, "ok"


def _whole(lately: StreamLately, retention: Retention) -> float:
    """Headroom of an empty backlog; 0 where there is no limit, for then nothing is short."""
    whole = headroom_seconds(Backlog(0.0, 0, lately.densest_bytes_per_second), retention)
    return whole if math.isfinite(whole) else 0.0


def head_line(head: Head) -> str:
    """The header in words."""
    parts = [counted(head.streams, "stream")]
    if head.need_attention:
        parts.append(f"{head.need_attention} need{'s' if head.need_attention == 1 else ''} attention")
    if head.cores is None:
        parts.append(f"{head.cores_used:.2f} cores used")
    else:
        share = f" ({head.cores_used / head.cores:.0%})" if head.cores > 0 else ""
        parts.append(f"{head.cores_used:.2f} of {head.cores:g} cores{share}")
    if head.work_price is not None:
        parts.append(f"λ {number(head.work_price)}")
    if head.plan_version is None:
        parts.append("no plan")
    elif head.plan_age_seconds is not None:
        word = "STALE, " if head.plan_stale else ""
        parts.append(f"plan {head.plan_version} ({word}{duration(head.plan_age_seconds)} old)")
    if head.usd_per_day:
        parts.append(f"{usd(head.usd_planned or 0.0)} of {usd(head.usd_per_day)} planned")
    return " · ".join(parts)
