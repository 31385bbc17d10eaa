"""One plan for all streams of a pool: prices, every stream's share of the cores, and who is not admitted.

Streams of different pipelines have different configurations and measure quality in units of their own; `value_scale`
makes their qualities one currency: 1 is what a stream's dearest configuration yields on average, times its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.admission import Candidate, admit
from skyscraper.control.demand import Sample, demand, options
from skyscraper.control.errors import Infeasible
from skyscraper.control.prices import PricePlan, plan_streams

Floats = NDArray[np.float64]

# A slot's content is a mean over its segments; of fewer, chance would be planned for.
FEWEST_SEGMENTS_PER_SLOT = 3
# What segments take beyond their estimates balances over a slot but for so much, where a profile knows no better.
_UNCERTAINTY = 0.1


@dataclass(frozen=True)
class StreamPast:
    """What the planner knows of one stream. R segments of its past, K configurations from the cheapest."""

    stream_id: str
    predicted: Floats
    """[R,K] quality as told before each segment was processed, in the pipeline's own unit."""
    truth: Floats
    """[R,K] quality as it was."""
    seconds: Floats
    """[R] when each began, since a midnight of the content's day; several days follow each other."""
    segment_seconds: float
    """Length of this stream's segments."""
    work_core_seconds: Floats
    """[K] of one segment."""
    value_scale: float
    """Normalised quality of one unit of the pipeline's own, the stream's weight in it."""
    weight: float = 1.0
    """Streams of less weight are refused before others."""
    burst_usd: Floats | None = None
    """[K] of one segment, all stateless work on burst machines; None where they may not be used."""
    uncertainty: float = _UNCERTAINTY
    """Real work of the cheapest configuration is at most (1 + this) times its estimate."""

    @property
    def floor_cores(self) -> float:
        """Cores that the stream needs to keep up at its cheapest, as sure as is known."""
        return float(self.work_core_seconds[0]) * (1 + self.uncertainty) / self.segment_seconds


@dataclass(frozen=True)
class JointPlan:
    """What all admitted streams get. Every stream is in `cores_by_stream` or in `refused`."""

    price: PricePlan
    cores_by_stream: dict[str, float]
    """Sums to the pool; no stream has less than its floor."""
    expected_quality: dict[str, float]
    """Mean per segment, in the pipeline's own unit, where the buffer evens out all peaks."""
    refused: dict[str, str]
    """Why, with the arithmetic."""


def joint_plan(
    pasts: Sequence[StreamPast],
    *,
    cores: float,
    segment_seconds: float,
    slot_seconds: float,
    day_seconds: float,
    limit_seconds: float,
    usd_per_day: float,
) -> JointPlan:
    """Plan all streams together. `pasts`: the oldest stream first; of equal weight, the newest is refused first.

    A round is `segment_seconds` of every stream. Raises ValueError for no stream and for slots that do not fit the
    day, Infeasible where not one stream fits.
    """
    _check(pasts, segment_seconds=segment_seconds, slot_seconds=slot_seconds, day_seconds=day_seconds)
    admission = admit([Candidate(past.stream_id, past.floor_cores, past.weight) for past in pasts], cores=cores)
    admitted = [past for past in pasts if past.stream_id not in admission.refused]
    if not admitted:
        raise Infeasible("; ".join(admission.refused.values()))
    samples = [_sample(past, segment_seconds, slot_seconds) for past in admitted]
    price = plan_streams(
        samples,
        cores=cores,
        segment_seconds=segment_seconds,
        slot_seconds=slot_seconds,
        buffer_seconds=max(limit_seconds, segment_seconds),
        usd_per_day=usd_per_day,
        day_seconds=day_seconds,
    )
    value, work = _at_balance(samples, price, cores * segment_seconds)
    floors = np.array([past.floor_cores for past in admitted])
    shares = _shares(floors, work / segment_seconds, cores)
    return JointPlan(
        price,
        {past.stream_id: float(share) for past, share in zip(admitted, shares, strict=True)},
        {
            past.stream_id: float(each) / _per_round(past, segment_seconds) / past.value_scale
            for past, each in zip(admitted, value, strict=True)
        },
        admission.refused,
    )


def _check(pasts: Sequence[StreamPast], *, segment_seconds: float, slot_seconds: float, day_seconds: float) -> None:
    if not pasts:
        raise ValueError("no stream to plan for")
    if len({past.stream_id for past in pasts}) < len(pasts):
        raise ValueError("a stream is there twice")
    for past in pasts:
        if not (past.value_scale > 0 and past.segment_seconds > 0 and len(past.seconds)):
            raise ValueError(
                f"stream {past.stream_id}: value_scale {past.value_scale:g} and segment_seconds "
                f"{past.segment_seconds:g} must be above 0, and there must be a past ({len(past.seconds)} segments)"
            )
    slots = day_seconds / slot_seconds
    if slots < 1 or abs(slots - round(slots)) > 1e-6 * slots:
        raise ValueError(
            f"slot_seconds {slot_seconds:g} does not divide day_seconds {day_seconds:g}: choose one that does"
        )
    # Both are measured: a hair less is as good.
    if slot_seconds < (1 - 1e-3) * FEWEST_SEGMENTS_PER_SLOT * segment_seconds:
        raise ValueError(
            f"slot_seconds {slot_seconds:g} holds fewer than {FEWEST_SEGMENTS_PER_SLOT} segments of "
            f"{segment_seconds:g} s: choose longer slots"
        )


def _per_round(past: StreamPast, segment_seconds: float) -> float:
    """Segments of the stream in a round."""
    return segment_seconds / past.segment_seconds


def _sample(past: StreamPast, segment_seconds: float, slot_seconds: float) -> Sample:
    scale = past.value_scale * _per_round(past, segment_seconds)
    usd = None if past.burst_usd is None else past.burst_usd * _per_round(past, segment_seconds)
    return Sample(
        past.predicted * scale,
        past.truth * scale,
        np.asarray(past.seconds // slot_seconds, dtype=np.int64),
        options(past.work_core_seconds * _per_round(past, segment_seconds), usd),
    )


def _at_balance(samples: Sequence[Sample], price: PricePlan, work_per_round: float) -> tuple[Floats, Floats]:
    """[N] value and [N] pool work of each stream per round, at the one price of work at which all use what the pool
    can do: the mean of what the prices by time, level and lag lead to."""
    each = [
        demand([Sample(one.predicted, one.truth, one.slots * 0, one.choice)], 1, price.grid, price.usd_price)
        for one in samples
    ]
    value, work = (
        np.stack([table[0] for table in tables]) for tables in zip(*((d.value, d.work) for d in each), strict=True)
    )
    total = work.sum(axis=0)
    # Work falls as the price rises.
    above = int(np.searchsorted(-total, -work_per_round))
    if above == 0:
        return value[:, 0], work[:, 0]
    if above == len(total):
        return value[:, -1], work[:, -1]
    part = (total[above - 1] - work_per_round) / (total[above - 1] - total[above])
    mixed = [table[:, above - 1] * (1 - part) + table[:, above] * part for table in (value, work)]
    return mixed[0], mixed[1]


def _shares(floors: Floats, wanted: Floats, cores: float) -> Floats:
    """[N] cores: each its floor, and of the rest in proportion to what it would use beyond; all alike in floors where
    nobody would."""
    beyond = np.maximum(wanted - floors, 0.0)
    if beyond.sum() <= 0:
        beyond = floors if floors.sum() > 0 else np.ones_like(floors)
    return np.asarray(floors + (cores - floors.sum()) * beyond / beyond.sum())
