"""Re-fits in the background: which pipeline's predictors are learned anew, and when. One at a time, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from skyscraper.errors import SkyscraperError
from skyscraper.profile.fit import Fit
from skyscraper.profile.refit import Samples, refit

from skyscraper_tuner import metrics
from skyscraper_tuner.config import RefitConfig

log = structlog.get_logger()


@dataclass(frozen=True)
class Refitted:
    """A new fit of the pipeline's `parent`, learned from segments before since_seconds (since 1970)."""

    pipeline: str
    parent: str
    fit: Fit
    since_seconds: float


@dataclass(frozen=True)
class Schedule:
    """When each pipeline's predictors were learned, as far as this process knows (monotonic seconds)."""

    learned: Mapping[str, float]
    interval_seconds: float

    def due(self, now: float, *, drifted: Collection[str], busy: Collection[str]) -> list[str]:
        """Pipelines to learn anew, those that drifted first. Not those on trial: one change at a time."""
        waited = {one: now - since for one, since in self.learned.items() if one not in busy}
        urgent = [one for one in sorted(waited) if one in drifted]
        return urgent + [one for one in sorted(waited) if one not in drifted and waited[one] >= self.interval_seconds]


class Refitting:
    """Call `start` and `finished` from one thread."""

    def __init__(self, config: RefitConfig, *, seed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._seed = seed
        self._clock = clock
        self._learned: dict[str, float] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="refit")
        self._running: tuple[str, Future[Refitted]] | None = None

    def start(
        self,
        samples: Callable[[str], Samples],
        fits: Mapping[str, Fit],
        *,
        drifted: Collection[str],
        on_trial: Collection[str],
    ) -> None:
        """Begin the most urgent re-fit that is due and has enough samples, if none is under way."""
        now = self._clock()
        for pipeline in fits:
            self._learned.setdefault(pipeline, now)
        if not self._config.enabled or self._running is not None:
            return
        known = {one: since for one, since in self._learned.items() if one in fits}
        for pipeline in Schedule(known, self._config.interval_seconds).due(now, drifted=drifted, busy=on_trial):
            found = samples(pipeline)
            if found.count >= self._config.fewest_samples:
                self._learned[pipeline] = now
                self._running = pipeline, self._executor.submit(self._learn, pipeline, fits[pipeline], found)
                return

    def finished(self) -> Refitted | None:
        """What was learned, once."""
        if self._running is None or not self._running[1].done():
            return None
        (pipeline, future), self._running = self._running, None
        try:
            return future.result()
        except (SkyscraperError, ValueError) as error:
            metrics.REFITS.labels(pipeline, "failed").inc()
            log.warning("refit_failed", pipeline=pipeline, error=str(error))
            return None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _learn(self, pipeline: str, fit: Fit, samples: Samples) -> Refitted:
        started = time.monotonic()
        newest = newest_of(samples, self._config.most_samples)
        found = refit(fit, newest, seed=self._seed)
        metrics.REFIT_SECONDS.observe(time.monotonic() - started)
        # What comes after the last segment learned from may judge it.
        return Refitted(pipeline, fit.version, found, float(newest.seconds[-1]) + fit.segment_seconds)


def newest_of(samples: Samples, most: int) -> Samples:
    start = max(0, samples.count - most)
    return Samples(
        samples.seconds[start:], samples.inputs[start:], samples.configuration[start:], samples.quality[start:]
    )
