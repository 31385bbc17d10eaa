"""What the watching commands read from Kafka: streams, plans and profiles as tables, kept up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from google.protobuf.message import DecodeError

from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.errors import SkyscraperError
from skyscraper.v1 import plan_pb2, profile_pb2, stream_pb2
from skyscraper.view.fits import FitView, fit_view
from skyscraper.view.pool import PoolView, pool_view

# A person waits in front of it: long enough for a slow link, short enough to be told that nobody is there.
ANSWER_SECONDS = 10.0


class Tables:
    """Streams, plans and profiles as they are now; values are decoded once, when they change."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._streams = CompactedTable(client, topics.STREAMS)
        self._plans = CompactedTable(client, topics.PLANS)
        self._profiles = CompactedTable(client, topics.PROFILES)
        self._decoded: dict[tuple[str, bytes], tuple[bytes, Any]] = {}
        self.damaged: dict[str, str] = {}
        """Keys whose newest value cannot be read, with the reason."""

    def start(self, *, deadline_seconds: float) -> None:
        """Read them to their ends. Raises BusTimeout, BusError."""
        for table in (self._streams, self._plans, self._profiles):
            table.start(deadline_seconds=deadline_seconds)

    def close(self) -> None:
        for table in (self._streams, self._plans, self._profiles):
            table.close()

    def streams(self) -> dict[str, stream_pb2.Stream]:
        return {
            key.decode(errors="replace"): found
            for key, value in self._streams.items().items()
            if (found := self._message(topics.STREAMS, key, value, stream_pb2.Stream)) is not None
        }

    def plans(self) -> dict[str, plan_pb2.Plan]:
        """Of streams; the pool's is not among them."""
        return {
            key.decode(errors="replace"): found
            for key, value in self._plans.items().items()
            if key != topics.POOL_KEY and (found := self._message(topics.PLANS, key, value, plan_pb2.Plan)) is not None
        }

    def pool(self) -> PoolView | None:
        value = self._plans.get(topics.POOL_KEY)
        if value is None:
            return None
        plan: plan_pb2.Plan | None = self._message(topics.PLANS, topics.POOL_KEY, value, plan_pb2.Plan)
        if plan is None:
            return None
        found: PoolView | None = self._cached("pool", topics.POOL_KEY, value, lambda: pool_view(plan))
        return found

    def fit(self, pipeline: str, version: str) -> FitView | None:
        """The fit of that version; of the pipeline's newest profile where none is named."""
        if version:
            named = self._fit(f"{pipeline}#{version}".encode())
            if named is not None:
                return named
        newest = self._fit(pipeline.encode())
        return newest if newest is not None and version in ("", newest.version) else None

    def published_fits(self, pipeline: str) -> list[str]:
        """Versions of the pipeline's fits."""
        keys = [key for key in self._profiles.items() if key.partition(b"#")[0] == pipeline.encode()]
        return sorted({found.version for key in keys if (found := self._fit(key)) is not None})

    def _fit(self, key: bytes) -> FitView | None:
        value = self._profiles.get(key)
        if value is None:
            return None
        message: profile_pb2.Profile | None = self._message(topics.PROFILES, key, value, profile_pb2.Profile)
        if message is None:
            return None
        found: FitView | None = self._cached("fit", key, value, lambda: fit_view(message))
        return found

    def _message(self, topic: str, key: bytes, value: bytes, kind: Any) -> Any:
        return self._cached(topic, key, value, lambda: kind.FromString(value))

    def _cached(self, what: str, key: bytes, value: bytes, decode: Any) -> Any:
        known = self._decoded.get((what, key))
        # The table hands out the same object until the value changes.
        if known is not None and known[0] is value:
            return known[1]
        name = f"{what} {key.decode(errors='replace')}"
        try:
            found = decode()
            self.damaged.pop(name, None)
        except (DecodeError, SkyscraperError) as error:
            self.damaged[name] = str(error)
            found = None
        self._decoded[what, key] = (value, found)
        return found


@contextmanager
def open_tables(client: Mapping[str, Any], *also: str) -> Iterator[Tables]:
    """Tables that are complete as of now. `also`: topics that must be there too. Raises BusTimeout, BusError."""
    require_topics(client, (topics.STREAMS, topics.PLANS, topics.PROFILES, *also))
    tables = Tables(client)
    try:
        tables.start(deadline_seconds=ANSWER_SECONDS)
        yield tables
    finally:
        tables.close()


def require_topics(client: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
    """Raises BusTimeout where no broker answers, BusError where topics are missing: each in one sentence."""
    admin = AdminClient(dict(client))
    try:
        present = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as error:
        raise BusTimeout(
            f"Kafka at {client.get('bootstrap.servers')} does not answer: start it, or name another with --bootstrap"
        ) from error
    missing = [name for name in wanted if name not in present]
    if missing:
        raise BusError(
            f"Kafka at {client.get('bootstrap.servers')} has no {', '.join(missing)}: create the topics with "
            "`skyscraper topics create`"
        )
