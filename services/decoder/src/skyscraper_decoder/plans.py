"""What the tuner says: plans and fits, followed in the background and decoded once each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeVar

import structlog
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.plans import decode_plan, decode_pool
from skyscraper.bus.profiles import profile_key
from skyscraper.control.outlook import PoolPrices
from skyscraper.errors import SkyscraperError
from skyscraper.profile.codec import decode_fit
from skyscraper.profile.fit import Fit
from skyscraper.v1 import plan_pb2, profile_pb2

from skyscraper_decoder import metrics

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True)
class PoolView:
    """The pool's plan, its version, and when its lease ends (wall clock)."""

    prices: PoolPrices
    version: int
    lease_end_seconds: float

    def stale(self, now_seconds: float) -> bool:
        return now_seconds > self.lease_end_seconds


class PlanBook:
    """Answers from memory. Something that cannot be read is counted, logged once, and counts as not there."""

    def __init__(self, client: Mapping[str, Any], *, wall: Callable[[], float] = time.time) -> None:
        self._plans = CompactedTable(client, topics.PLANS)
        self._profiles = CompactedTable(client, topics.PROFILES)
        self._wall = wall
        self._lock = threading.Lock()
        self._decoded: dict[bytes, tuple[bytes, Any]] = {}

    def start(self, *, deadline_seconds: float) -> None:
        self._plans.start(deadline_seconds=deadline_seconds)
        self._profiles.start(deadline_seconds=deadline_seconds)

    def close(self) -> None:
        self._plans.close()
        self._profiles.close()

    def pool(self) -> PoolView | None:
        return self._get(self._plans, topics.POOL_KEY, _pool_view)

    def stream(self, stream_id: str) -> plan_pb2.StreamPlan | None:
        return self._get(self._plans, stream_id.encode(), _stream_plan)

    def stale(self, view: PoolView | None) -> bool:
        return view is not None and view.stale(self._wall())

    def fit(self, pipeline: str, version: str) -> Fit | None:
        """The fit of that version; of an empty version, the pipeline's current one."""
        key = profile_key(pipeline, version) if version else pipeline.encode()
        return self._get(self._profiles, key, _fit)

    def _get(self, table: CompactedTable, key: bytes, decode: Callable[[bytes], T | None]) -> T | None:
        value = table.get(key)
        if value is None:
            return None
        with self._lock:
            known = self._decoded.get(key)
            if known is not None and known[0] == value:
                found: T | None = known[1]
                return found
            try:
                found = decode(value)
            except (SkyscraperError, DecodeError, ValueError) as error:
                metrics.UNREADABLE_PLANS.labels("pool" if key == topics.POOL_KEY else "stream_or_profile").inc()
                log.warning("plan_unreadable", key=key.decode(errors="replace"), error=str(error))
                found = None
            self._decoded[key] = (value, found)
            return found


def _pool_view(value: bytes) -> PoolView:
    plan = decode_plan(value)
    made_seconds = plan.made_time.ToDatetime(UTC).timestamp()
    return PoolView(decode_pool(plan.pool), plan.version, made_seconds + plan.lease_seconds)


def _stream_plan(value: bytes) -> plan_pb2.StreamPlan:
    return decode_plan(value).stream


def _fit(value: bytes) -> Fit | None:
    profile = profile_pb2.Profile.FromString(value)
    return decode_fit(profile.fit) if profile.HasField("fit") else None
