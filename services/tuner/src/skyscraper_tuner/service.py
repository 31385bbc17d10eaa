"""The tuner's loop: take part in the election, and plan while elected. Reports are digested by `shards` beside it."""

from __future__ import annotations

import threading
import time

import structlog
from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.fenced import Deposed
from skyscraper.service import Health

from skyscraper_tuner import metrics
from skyscraper_tuner.config import TunerConfig
from skyscraper_tuner.election import Election
from skyscraper_tuner.fits import Fits
from skyscraper_tuner.planner import Planner
from skyscraper_tuner.shards import Shards

log = structlog.get_logger()

_START_SECONDS = 30.0
_POLL_SECONDS = 0.2
# Streams and profiles that came or went are planned for at once, but not more often than this.
_SHORTEST_INTERVAL_SECONDS = 1.0
# A round takes seconds; a loop that stands still longer is hung.
_ALIVE_SECONDS = 120.0


class Tuner:
    """One tuner process, without its signals and its HTTP face."""

    def __init__(self, config: TunerConfig) -> None:
        self._started = time.monotonic()
        self._config = config
        client = config.kafka.client()
        self._streams = CompactedTable(client, topics.STREAMS)
        self._profiles = CompactedTable(client, topics.PROFILES)
        self._fits = Fits(self._profiles.get, self._profiles.items)
        self._shards = Shards(config, self._fits)
        self._digests = CompactedTable(client, config.changelog_topic)
        self._election = Election(
            client,
            group=f"{config.group}-planner",
            instance=config.instance,
            session_timeout_seconds=config.session_timeout_seconds,
        )
        self._planner: Planner | None = None
        self._next_round = 0.0
        self._earliest_round = 0.0
        self._planned_for: tuple[object, ...] = ()
        self._has_planned = False
        self.last_turn = time.monotonic()

    def run(self, health: Health, stop: threading.Event) -> None:
        try:
            self._profiles.start(deadline_seconds=_START_SECONDS)
            self._shards.start()
            for table in (self._streams, self._digests):
                table.start(deadline_seconds=_START_SECONDS)
            while not stop.is_set():
                self.last_turn = time.monotonic()
                self._shards.check()
                self._election.poll(_POLL_SECONDS)
                self._plan()
                health.set_ready(self._shards.ready and (not self._election.leading or self._has_planned))
        finally:
            self._step_down()
            self._shards.close()
            self._election.close()
            for table in (self._streams, self._profiles, self._digests):
                table.close()

    def _plan(self) -> None:
        metrics.LEADING.set(self._election.leading)
        if not self._election.leading:
            self._step_down()
            return
        if not self._is_due():
            return
        try:
            if self._planner is None:
                self._planner = Planner(self._config, streams=self._streams, digests=self._digests, fits=self._fits)
                log.info("planning", version=self._planner.version)
            made = self._planner.round()
        except Deposed as error:
            # The election will say so, too; until then another round finds out the same.
            metrics.PLANS.labels("deposed").inc()
            log.warning("deposed", error=str(error))
            self._step_down()
            self._earliest_round = time.monotonic() + self._config.session_timeout_seconds
            return
        if not self._has_planned:
            self._has_planned = True
            metrics.RECOVERY_SECONDS.labels("plans").observe(time.monotonic() - self._started)
        log.info("planned", version=self._planner.version, plans=len(made.plans), unplanned=len(made.unplanned))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now < self._earliest_round:
            return False
        known = (self._streams.items(), self._profiles.items())
        if now < self._next_round and known == self._planned_for:
            return False
        self._planned_for = known
        self._earliest_round = now + _SHORTEST_INTERVAL_SECONDS
        self._next_round = now + self._config.plan_interval_seconds
        return True

    def _step_down(self) -> None:
        if self._planner is not None:
            self._planner.close()
            self._planner = None
            # A new term begins with a round.
            self._next_round = 0.0


def serve(config: TunerConfig, health: Health, stop: threading.Event) -> None:
    tuner = Tuner(config)
    health.alive = lambda: time.monotonic() - tuner.last_turn < _ALIVE_SECONDS
    tuner.run(health, stop)
