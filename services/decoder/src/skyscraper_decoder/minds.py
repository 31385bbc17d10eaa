"""What is believed of each stream that this process has processed: its fit, what predictions miss, what work costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from skyscraper.control.live import Belief, ResidualNoise
from skyscraper.errors import ConfigError
from skyscraper.pipeline import Configuration, Pipeline, configure
from skyscraper.profile.fit import Fit
from skyscraper.v1 import plan_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.away import AwayBelief, away_share

log = structlog.get_logger()


@dataclass
class Mind:
    """Of one stream, for one fit of its pipeline. `work_scale`: real work over its estimate, lately."""

    fit: Fit
    configurations: tuple[Configuration, ...]
    belief: Belief
    work_scale: float
    away: AwayBelief

    @property
    def floor_rate(self) -> float:
        """Core-seconds per second of video at the cheapest configuration."""
        return float(self.fit.work.rate[0]) * self.work_scale


class Minds:
    """By stream. Minds are changed by the stream's own lane only; any thread may read."""

    def __init__(self, fit_of: Callable[[str, str], Fit | None]) -> None:
        self._fit_of = fit_of
        self._lock = threading.Lock()
        self._minds: dict[str, Mind] = {}

    def of(self, stream_id: str, pipeline: Pipeline, plan: plan_pb2.StreamPlan | None) -> Mind | None:
        """A new one where the pipeline or its fit has changed. None without a usable fit."""
        fit = self._fit_of(pipeline.name, plan.profile_version if plan is not None else "")
        if fit is None:
            return None
        known = self.get(stream_id)
        if known is not None and known.fit is fit:
            return known
        try:
            configurations = tuple(configure(pipeline.knobs, one) for one in fit.configurations)
        except ConfigError as error:
            metrics.UNREADABLE_PLANS.labels("knobs").inc()
            log.warning("profile_does_not_fit", pipeline=pipeline.name, profile=fit.version, error=str(error))
            return None
        noise = ResidualNoise(fit.residuals.persistence, fit.residuals.covariance, fit.residuals.noise)
        scale = plan.work_scale if plan is not None and plan.work_scale > 0 else 1.0
        mind = Mind(fit, configurations, Belief(noise, fit.categories.count), scale, AwayBelief(away_share(fit)))
        with self._lock:
            self._minds[stream_id] = mind
        return mind

    def get(self, stream_id: str) -> Mind | None:
        with self._lock:
            return self._minds.get(stream_id)

    def forget(self, stream_ids: Sequence[str]) -> None:
        """Streams that another process has now."""
        with self._lock:
            for stream_id in stream_ids:
                self._minds.pop(stream_id, None)
