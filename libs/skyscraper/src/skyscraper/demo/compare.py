"""Two runs over the same day: what each was worth and what it cost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.bus.reports import Seen, seconds
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.v1 import report_pb2

Floats = NDArray[np.float64]

# What a core of an on-premise server costs, power and housing included: a 64-core machine of USD 15,000 over four
# years with as much again for running it is about 0.013 USD per core-hour.
USD_PER_CORE_HOUR = 0.013


@dataclass(frozen=True)
class Moment:
    """One segment of a run, at an hour of the content's day."""

    stream_id: str
    hour: float
    quality: float
    core_seconds: float
    """Of the pool."""
    burst_usd: float
    wait_seconds: float
    configuration: tuple[tuple[str, str], ...]
    rule: str


@dataclass(frozen=True)
class DayRun:
    """One run over the day."""

    name: str
    moments: tuple[Moment, ...]

    @property
    def quality(self) -> float:
        """Mean per segment, in the pipeline's own unit."""
        return float(np.mean([one.quality for one in self.moments])) if self.moments else 0.0

    @property
    def core_seconds(self) -> float:
        return sum(one.core_seconds for one in self.moments)

    @property
    def usd(self) -> float:
        """Of the pool's cores and of burst machines."""
        return self.core_seconds / 3600 * USD_PER_CORE_HOUR + sum(one.burst_usd for one in self.moments)

    @property
    def longest_wait_seconds(self) -> float:
        return max((one.wait_seconds for one in self.moments), default=0.0)

    @property
    def configurations(self) -> int:
        """How many different ones were used."""
        return len({one.configuration for one in self.moments})

    @property
    def switches(self) -> int:
        """How often a stream changed its configuration."""
        last: dict[str, tuple[tuple[str, str], ...]] = {}
        count = 0
        for one in self.moments:
            count += last.get(one.stream_id, one.configuration) != one.configuration
            last[one.stream_id] = one.configuration
        return count


def day_run(name: str, seen: Sequence[Seen], *, start_seconds: float, day_seconds: float) -> DayRun:
    """The processed segments of the day that began at `start_seconds` (Unix time)."""
    moments = []
    for one in sorted(seen, key=lambda each: seconds(each.report.event_time)):
        report = one.report
        if report.outcome != report_pb2.OUTCOME_PROCESSED:
            continue
        begun = seconds(report.event_time) - start_seconds
        moments.append(
            Moment(
                report.stream_id,
                begun / day_seconds * SECONDS_PER_DAY / 3600,
                report.quality,
                report.decoder_core_seconds + report.inference_core_seconds,
                report.burst_nano_usd * 1e-9,
                seconds(report.started_time) - seconds(report.published_time),
                tuple(sorted(report.configuration.items())),
                report_pb2.Rule.Name(report.decision.rule).removeprefix("RULE_").lower(),
            )
        )
    return DayRun(name, tuple(moments))


def by_hour(run: DayRun, values: Sequence[float], bins: int) -> tuple[Floats, Floats]:
    """Hours [B] and the mean of `values` (one per moment) in each; NaN where there was no segment."""
    hours = np.array([one.hour for one in run.moments])
    at = np.clip((hours / 24 * bins).astype(int), 0, bins - 1)
    counts = np.bincount(at, minlength=bins)
    sums = np.bincount(at, weights=np.array(values), minlength=bins)
    with np.errstate(invalid="ignore"):
        return (np.arange(bins) + 0.5) * 24 / bins, sums / np.where(counts > 0, counts, np.nan)
