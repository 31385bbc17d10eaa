"""A real broker, the real loader as a process, a real warehouse."""

from __future__ import annotations

import itertools
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import TopicSpec, rows_topic, topic_specs
from skyscraper.lakehouse import CatalogConfig, open_catalog
from skyscraper.lakehouse.query import run_query
from skyscraper.localkafka.broker import LocalBroker
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema
from skyscraper.processes import free_ports, spawn
from skyscraper.v1 import profile_pb2

PARTITIONS = 4
SCHEMA = RowSchema((Column("at", ColumnType.TIMESTAMP, "When."), Column("people", ColumnType.INT64, "How many.")), "at")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row_json(number: int, stream: str = "gate-0", schema: RowSchema = SCHEMA, **more: Any) -> bytes:
    values = {"at": NOON + timedelta(seconds=number), "people": number % 7, **more}
    return schema.encode(values, stream_id=stream, segment=f"{stream}/1/{number // 10}", index=number)


class Rows:
    """One pipeline's topic, table and writer."""

    def __init__(self, client: dict[str, Any], pipeline: str, warehouse: CatalogConfig) -> None:
        self.client, self.pipeline, self.warehouse = client, pipeline, warehouse
        self.topic = rows_topic(pipeline)
        self.sent: list[tuple[str, int]] = []
        self._producer = Producer({**client, "enable.idempotence": True})

    def profile(self, schema: RowSchema = SCHEMA) -> None:
        value = profile_pb2.Profile(pipeline=self.pipeline, row_schema=schema.to_proto()).SerializeToString()
        self._producer.produce(topics.PROFILES, value, self.pipeline.encode())
        assert self._producer.flush(20) == 0

    def send(self, numbers: Sequence[int], partition: int = 0, **more: Any) -> None:
        stream = f"gate-{partition}"
        for number in numbers:
            self.send_raw(row_json(number, stream, **more), partition)
            self.sent.append((stream, number))
        self.flush()

    def send_raw(self, value: bytes | None, partition: int = 0) -> None:
        self._producer.produce(self.topic, value, f"gate-{partition}".encode(), partition=partition)

    def flush(self) -> None:
        assert self._producer.flush(20) == 0

    def loaded(self, sql: str = 'SELECT _stream, _row, people, "at" FROM {} ORDER BY ALL') -> list[dict[str, Any]]:
        catalog = open_catalog(self.warehouse)
        if not catalog.table_exists(f"{self.warehouse.namespace}.{self.pipeline}"):
            return []
        rows: list[dict[str, Any]] = run_query(
            catalog, self.warehouse.namespace, sql.format(f'"{self.pipeline}"')
        ).to_pylist()
        return rows

    def keys(self) -> list[tuple[str, int]]:
        return [(row["_stream"], row["_row"]) for row in self.loaded()]

    def wait(self, count: int | None = None, seconds: float = 60) -> None:
        """Until the table has as many rows as were sent; then a little longer, for what would come twice."""
        wanted = len(self.sent) if count is None else count
        eventually(lambda: len(self.keys()) >= wanted, seconds)
        time.sleep(1.5)

    def assert_complete(self) -> None:
        assert self.keys() == sorted(self.sent)
        assert all(row["people"] == row["_row"] % 7 for row in self.loaded())
        assert all(row["at"] == NOON + timedelta(seconds=row["_row"]) for row in self.loaded())


class LoaderProcess:
    def __init__(self, folder: Path, client: dict[str, Any], warehouse: CatalogConfig, **settings: Any) -> None:
        self.instance = settings.pop("instance", "a")
        (self.port,) = free_ports(1)
        self._log = folder / f"loader-{self.instance}.log"
        self._config = folder / f"loader-{self.instance}.toml"
        values = {
            "instance": self.instance,
            "log_format": "json",
            "session_timeout_seconds": 6.0,
            "commit_interval_seconds": 0.3,
            **settings,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
        lines += ["[kafka]", f"bootstrap_servers = {json.dumps(client['bootstrap.servers'])}"]
        lines += ["[metrics]", f"port = {self.port}"]
        lines += ["[catalog]", f"warehouse_path = {json.dumps(str(warehouse.warehouse_path))}"]
        for key, value in values.items():
            if isinstance(value, dict):
                lines += [f"[{key}]", *(f"{name} = {json.dumps(one)}" for name, one in value.items())]
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text("\n".join(lines))
        self._process: Popen[bytes] | None = None

    def start(self) -> LoaderProcess:
        self._process = spawn([sys.executable, "-m", "skyscraper_loader", "--config", str(self._config)], self._log)
        return self

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = 30) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def events(self, name: str) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def metric(self, start: str) -> float:
        """The sum of the samples whose lines begin with `start`."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
        except (urllib.error.URLError, OSError):
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))


def eventually(check: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


def read_all(client: dict[str, Any], topic: str, partitions: int) -> list[tuple[bytes | None, dict[str, str]]]:
    """Every message of a topic as value and headers."""
    consumer = Consumer({**client, "group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found, open_partitions = [], set(range(partitions))
    until = time.monotonic() + 30
    while open_partitions:
        assert time.monotonic() < until
        message = consumer.poll(1)
        if message is not None and message.error() is not None:
            open_partitions.discard(message.partition() or 0)
        elif message is not None:
            headers: Any = message.headers() or []
            found.append((message.value(), {name: value.decode() for name, value in headers}))
    consumer.close()
    return found


@pytest.fixture(scope="session")
def client(session_broker: LocalBroker) -> dict[str, Any]:
    client = {"bootstrap.servers": session_broker.bootstrap_servers}
    specs = topic_specs(partitions=2, pipelines=[], retention_seconds=3600, retention_bytes_per_partition=10**8)
    create_topics(client, specs, replication_factor=1)
    return client


_numbers = itertools.count()


@pytest.fixture
def warehouse(tmp_path: Path) -> CatalogConfig:
    return CatalogConfig(warehouse_path=tmp_path / "warehouse")


@pytest.fixture
def make_rows(client: dict[str, Any], warehouse: CatalogConfig) -> Callable[..., Rows]:
    def make(schema: RowSchema | None = SCHEMA, **topic_config: str) -> Rows:
        pipeline = f"faults-{next(_numbers)}"
        create_topics(client, [TopicSpec(rows_topic(pipeline), PARTITIONS, topic_config)], replication_factor=1)
        rows = Rows(client, pipeline, warehouse)
        if schema is not None:
            rows.profile(schema)
        return rows

    return make


@pytest.fixture
def make_loader(
    tmp_path: Path, client: dict[str, Any], warehouse: CatalogConfig
) -> Iterator[Callable[..., LoaderProcess]]:
    made: list[LoaderProcess] = []

    def make(*rows: Rows, **settings: Any) -> LoaderProcess:
        pipelines = [one.pipeline for one in rows]
        settings = {"group": f"loader-{pipelines[0]}", "pipelines": pipelines, **settings}
        made.append(LoaderProcess(tmp_path / "loader", client, warehouse, **settings))
        return made[-1].start()

    yield make
    for one in made:
        one.close()
