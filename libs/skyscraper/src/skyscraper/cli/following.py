"""Following a running installation: reports into windows, tables and bounds beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.headroom import Buffer
from skyscraper.bus.offsets import Bounds
from skyscraper.bus.reports import ReportReader, Seen
from skyscraper.cli.watching import Tables
from skyscraper.control.headroom import Retention
from skyscraper.v1 import plan_pb2
from skyscraper.view.fleet import WINDOW_SECONDS, Fleet
from skyscraper.view.top import Sources, Top, top
from skyscraper.view.words import duration

# Old enough that whoever asks about streams of the past gets an answer, and no longer.
_FORGET_SECONDS = 2 * WINDOW_SECONDS
_TURN_SECONDS = 0.1
# A look must not freeze the screen for long where the broker is away.
_REQUEST_SECONDS = 3.0


class Follower:
    """Takes in reports as they come, and looks. One thread."""

    def __init__(
        self,
        client: Mapping[str, Any],
        tables: Tables,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BusTimeout, BusError."""
        self._tables = tables
        self._wall = wall
        self._clock = clock
        self._fleet = Fleet()
        self._buffer = Buffer(client, request_seconds=_REQUEST_SECONDS)
        self._reader = ReportReader(client, since_seconds=wall() - WINDOW_SECONDS)
        self._bounds: dict[int, Bounds] = {}
        self._retention = Retention(None, None)
        self._answered = clock()
        self._silent = False
        self._behind = True

    def catch_up(self, deadline_seconds: float) -> None:
        """Take in what was reported in the last hour, as far as the time allows. Raises BusTimeout."""
        deadline = self._clock() + deadline_seconds
        owners = self._owners()
        while self._behind and self._clock() < deadline:
            self._take(self._reader.take(_TURN_SECONDS), owners)
            self._behind = self._reader.behind()

    def wait(self, seconds: float, ended: Callable[[], bool] = lambda: False) -> None:
        """Take in what comes for so long, or until it has `ended`."""
        deadline = self._clock() + seconds
        owners = self._owners()
        while (left := deadline - self._clock()) > 0 and not ended():
            self._take(self._reader.take(min(left, _TURN_SECONDS)), owners)
        self._fleet.forget_before(_FORGET_SECONDS, self._wall(), self._tables.streams())
        if self._behind and not self._silent:
            with suppress(BusTimeout):
                self._behind = self._reader.behind()

    def look(self) -> Top:
        self._ask_kafka()
        streams = self._tables.streams()
        plans = {name: plan.stream for name, plan in self._tables.plans().items() if plan.HasField("stream")}
        versions = [plan.version for plan in self._tables.plans().values()]
        fits = {}
        for name in set(streams) | set(self._fleet.streams):
            pipeline, version = self._profile_of(name, plans)
            fit = self._tables.fit(pipeline, version) if version else None
            if fit is not None:
                fits[name] = fit
        sources = Sources(
            streams=streams,
            plans=plans,
            pool=self._tables.pool(),
            fits=fits,
            bounds=self._bounds,
            retention=self._retention,
            newest_plan_version=max(versions, default=0),
        )
        return top(self._fleet, sources, self._wall())

    def caveats(self) -> list[str]:
        """What makes the table less than it looks."""
        found = []
        if self._silent:
            found.append(f"KAFKA DOES NOT ANSWER for {duration(self._clock() - self._answered)}: what follows is old")
        elif self._behind:
            found.append("still reading the last hour")
        return found

    def close(self) -> None:
        self._reader.close()

    def _take(self, seen: Iterable[Seen], owners: Mapping[int, str]) -> None:
        for one in seen:
            self._fleet.take(one, owners)

    def _owners(self) -> dict[int, str]:
        return {stream.partition: name for name, stream in self._tables.streams().items()}

    def _profile_of(self, name: str, plans: Mapping[str, plan_pb2.StreamPlan]) -> tuple[str, str]:
        lately = self._fleet.streams.get(name)
        if lately is not None and lately.processed is not None:
            report = lately.processed.report
            if report.decision.profile_version:
                return report.pipeline, report.decision.profile_version
        plan = plans.get(name)
        return ("", "") if plan is None else (plan.pipeline, plan.profile_version)

    def _ask_kafka(self) -> None:
        wanted = {one.partition for one in self._fleet.streams.values()} | set(self._owners())
        try:
            self._retention = self._buffer.retention()
            self._bounds = self._buffer.bounds(wanted)
        except (BusTimeout, BusError):
            # What was known stays on the screen, and the header says how old it is.
            self._silent = True
        else:
            self._silent = False
            self._answered = self._clock()
