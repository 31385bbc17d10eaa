"""Real loader processes on the session's broker, each test with a pipeline, a warehouse and a group of its own."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import DEAD_LETTERS, PROFILES, TopicSpec, rows_topic
from skyscraper.lakehouse.catalog import CatalogConfig, open_catalog
from skyscraper.lakehouse.query import run_query
from skyscraper.localkafka import LocalBroker
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema
from skyscraper.processes import free_ports, spawn, tail
from skyscraper.v1 import profile_pb2
from skyscraper_pipelines.counting.pipeline import CountingPipeline

_START = datetime(2026, 5, 4, 12, tzinfo=UTC)
_NUMBERS = itertools.count()
SCHEMA = CountingPipeline().row_schema


def row_json(schema: RowSchema, stream_id: str, number: int) -> bytes:
    """A row of the counting pipeline, different for every number; further columns get the number as text."""
    time_ = _START + timedelta(seconds=number)
    values: dict[ColumnType, Any] = {
        ColumnType.STRING: f"text {number}",
        ColumnType.INT64: number,
        ColumnType.FLOAT64: number / 7,
        ColumnType.BOOL: number % 2 == 0,
        ColumnType.TIMESTAMP: time_,
    }
    row = {column.name: values[column.type] for column in schema.columns}
    return schema.encode(row, stream_id=stream_id, segment=f"{stream_id}/1/{number}", index=0)


class Place:
    """A rows topic with its table and its loaders."""

    def __init__(self, broker: LocalBroker, folder: Path, *, partitions: int = 3, **topic: str) -> None:
        self.pipeline = f"counting_{next(_NUMBERS)}"
        self.client: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers}
        self.topic = rows_topic(self.pipeline)
        self.catalog = CatalogConfig(warehouse_path=folder / "warehouse")
        self.written: Counter[str] = Counter()
        self._partitions = partitions
        self._folder = folder
        self._producer = Producer({**self.client, "enable.idempotence": True})
        self._loaders: list[Loader] = []
        specs = [
            TopicSpec(PROFILES, 1, {"cleanup.policy": "compact"}),
            TopicSpec(DEAD_LETTERS, 1),
            TopicSpec(self.topic, partitions, topic),
        ]
        create_topics(self.client, specs, replication_factor=1)

    def register(self, schema: RowSchema = SCHEMA, pipeline: str | None = None) -> None:
        profile = profile_pb2.Profile(
            pipeline=pipeline or self.pipeline, version="1", row_schema=schema.to_proto()
        ).SerializeToString()
        self._producer.produce(PROFILES, profile, (pipeline or self.pipeline).encode())
        assert self._producer.flush(30) == 0

    def write(self, numbers: Sequence[int], schema: RowSchema = SCHEMA) -> None:
        """One row per number, spread over the partitions; a stream stays in its partition."""
        for number in numbers:
            partition = number % self._partitions
            value = row_json(schema, f"camera-{partition}", number)
            self.written[str(number)] += 1
            self.write_raw(value, partition)
        self.flush()

    def write_raw(self, value: bytes, partition: int = 0) -> None:
        self._producer.produce(self.topic, value, partition=partition)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def loader(self, name: str = "loader", **settings: Any) -> Loader:
        values: dict[str, Any] = {
            "instance": name,
            "kafka": {"bootstrap_servers": self.client["bootstrap.servers"]},
            "catalog": {"warehouse_path": str(self.catalog.warehouse_path)},
            "group": f"group-{self.pipeline}",
            "pipelines": [self.pipeline],
            "session_timeout_seconds": 3.0,
            "commit_interval_seconds": 0.2,
            "log_format": "json",
        }
        self._loaders.append(Loader(self._folder / name, values | settings))
        return self._loaders[-1].start()

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of `sql`, in which `{table}` stands for the table."""
        statement = sql.format(table=self.pipeline)
        rows: list[dict[str, Any]] = run_query(open_catalog(self.catalog), "rows", statement).to_pylist()
        return rows

    def loaded(self) -> Counter[str]:
        """How often each number is in the table; empty while there is no table."""
        tables = {name[-1] for name in open_catalog(self.catalog).list_tables("rows")}
        if self.pipeline not in tables:
            return Counter()
        return Counter(
            {
                str(row["n"]): row["c"]
                for row in self.query("SELECT split_part(_segment, '/', 3) AS n, count(*) AS c FROM {table} GROUP BY 1")
            }
        )

    def wait_loaded(self, seconds: float = 60) -> None:
        """Until every row written is in the table; more than that is an error at once."""
        until = time.monotonic() + seconds
        while (loaded := self.loaded()) != self.written:
            assert not loaded - self.written, f"repeated or invented: {loaded - self.written}"
            assert time.monotonic() < until, f"{self.written.total() - loaded.total()} rows are missing\n{self.logs}"
            time.sleep(0.2)

    @property
    def logs(self) -> str:
        return "\n".join(loader.log for loader in self._loaders)

    def dead_letters(self) -> list[dict[str, str]]:
        """The headers of this topic's rejects."""
        # The loader's are plain; a killed decoder of another test may have left a transaction open in the topic.
        settings = {"group.id": "test", "enable.partition.eof": True, "isolation.level": "read_uncommitted"}
        consumer = Consumer({**self.client, **settings})
        found, until = [], time.monotonic() + 30
        try:
            consumer.assign([TopicPartition(DEAD_LETTERS, 0, 0)])
            while time.monotonic() < until:
                message = consumer.poll(1.0)
                error = None if message is None else message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    break
                if message is not None and error is None:
                    pairs: Any = message.headers() or []
                    found.append({name: value.decode() for name, value in pairs})
        finally:
            consumer.close()
        return [headers for headers in found if headers["sky_topic"] == self.topic]

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


class Loader:
    """`python -m skyscraper_loader` with its configuration."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics_port = free_ports(1)[0]
        self._config = folder / "loader.toml"
        self._log = folder / "log"
        self._config.write_text(tomli_w.dumps(values | {"metrics": {"port": self._metrics_port}}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Loader:
        self._process = spawn([sys.executable, "-m", "skyscraper_loader", "--config", str(self._config)], self._log)
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.close()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(40)

    @property
    def log(self) -> str:
        return tail(self._log, lines=30)

    def metric(self, line_start: str) -> float:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=2) as page:  # noqa: S310
                lines = page.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))

    def said(self, event: str) -> bool:
        return any(json.loads(line)["event"] == event for line in tail(self._log, lines=500).splitlines())

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture
def place(session_broker: LocalBroker, tmp_path: Path) -> Iterator[Place]:
    made = Place(session_broker, tmp_path)
    made.register()
    yield made
    made.close()


@pytest.fixture
def new_place(session_broker: LocalBroker, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """A place with topic settings of the test's own; not registered."""
    made: list[Place] = []

    def make(**settings: Any) -> Place:
        made.append(Place(session_broker, tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def with_column() -> Callable[..., RowSchema]:
    """The counting schema with one column more."""

    def make(name: str, *, nullable: bool) -> RowSchema:
        column = Column(name, ColumnType.STRING, "New.", nullable=nullable)
        return RowSchema((*SCHEMA.columns, column), SCHEMA.event_time_column)

    return make


@pytest.fixture
def eventually() -> Callable[..., None]:
    def wait(check: Callable[[], bool], seconds: float = 45) -> None:
        until = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.1)

    return wait
