"""Real tuner processes on a broker of their own, fed with reports as decoders would write them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from fitted_profile import DAY_SECONDS, profile_of, reports, small_fit
from skyscraper.bus.admin import create_topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.profiles import publish_profile
from skyscraper.bus.topics import PLANS, REPORTS, STREAMS, topic_specs
from skyscraper.localkafka import LocalBroker
from skyscraper.processes import free_ports, spawn, tail
from skyscraper.profile.fit import Fit
from skyscraper.v1 import plan_pb2, stream_pb2

PARTITIONS = 4


class Town:
    """Topics, a profile, and whoever tunes."""

    def __init__(self, broker: LocalBroker, folder: Path) -> None:
        self.client: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 2}
        self.folder = folder
        self.fit: Fit = small_fit()
        self.tuners: list[Tuner] = []
        self.reported: dict[str, int] = {}
        specs = topic_specs(
            partitions=PARTITIONS, pipelines=["counting"], retention_seconds=600, retention_bytes_per_partition=1 << 30
        )
        create_topics(self.client, specs, replication_factor=1)
        publish_profile(self.client, profile_of(self.fit))
        self._producer = Producer({**self.client, "enable.idempotence": True})

    def register(self, *names: str, **settings: Any) -> None:
        for number, name in enumerate(names):
            stream = stream_pb2.Stream(
                stream_id=name, pipeline="counting", partition=number, state=stream_pb2.STREAM_STATE_ACTIVE, **settings
            )
            self._producer.produce(STREAMS, stream.SerializeToString(), name.encode())
        assert self._producer.flush(30) == 0

    def report(self, *names: str, count: int = 20, start_seconds: float | None = None, **settings: Any) -> None:
        """The next segments of each stream, up to now if no start is given."""
        for number, name in enumerate(names):
            first = self.reported.get(name, 0)
            start = time.time() - count if start_seconds is None else start_seconds
            for one in reports(name, self.fit, start_seconds=start, count=count, first=first, seed=number, **settings):
                self._producer.produce(REPORTS, one.SerializeToString(), name.encode(), number % PARTITIONS)
            self.reported[name] = first + count
        assert self._producer.flush(30) == 0

    def tuner(self, name: str = "tuner", **settings: Any) -> Tuner:
        values: dict[str, Any] = {
            "instance": name,
            "kafka": {"bootstrap_servers": self.client["bootstrap.servers"]},
            "pool_cores": 2.0,
            "day_seconds": DAY_SECONDS,
            "slot_seconds": 15.0,
            "plan_interval_seconds": 1.0,
            "lease_seconds": 10.0,
            "state_folder": str(self.folder / "state"),
            "log_format": "json",
        }
        self.tuners.append(Tuner(self.folder / name, values | settings))
        return self.tuners[-1].start()

    def plans(self) -> dict[str, plan_pb2.Plan]:
        (table,) = read_compacted(self.client, PLANS, deadline_seconds=30).values()
        return {key.decode(): plan_pb2.Plan.FromString(value) for key, value in table.items()}

    def version(self) -> int:
        return max((plan.version for plan in self.plans().values()), default=0)

    def history(self) -> list[tuple[str, int]]:
        """Every committed plan in the order of the log: key and version (0 where a plan was removed)."""
        consumer = Consumer(
            {**self.client, "group.id": "history", "isolation.level": "read_committed", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(PLANS, 0, OFFSET_BEGINNING)])
        found = []
        until = time.monotonic() + 60
        while time.monotonic() < until:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is not None:
                break
            value = message.value()
            version = 0 if value is None else plan_pb2.Plan.FromString(value).version
            found.append(((message.key() or b"").decode(), version))
        consumer.close()
        return found

    def digested(self, changelog: str = "sky-tuner-digests-changelog") -> dict[str, int]:
        """Segments in the table, by stream, added up over slots; empty until faust has created its changelog."""
        from skyscraper.v1 import digest_pb2

        found: dict[str, int] = {}
        if changelog not in Consumer({**self.client, "group.id": "digested"}).list_topics(timeout=30).topics:
            return found
        for table in read_compacted(self.client, changelog, deadline_seconds=30).values():
            for key, value in table.items():
                if b"/" in key:
                    slot = digest_pb2.SlotDigest.FromString(value)
                    found[slot.stream_id] = found.get(slot.stream_id, 0) + slot.segments
        return found

    @property
    def logs(self) -> str:
        return "\n".join(f"{one.name}:\n{tail(one.log)}" for one in self.tuners)

    def close(self) -> None:
        for one in self.tuners:
            one.close()


class Tuner:
    """One process."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        folder.mkdir(parents=True)
        self.name = str(values["instance"])
        self.port = free_ports(1)[0]
        self.log = folder / "tuner.log"
        self._config = folder / "tuner.toml"
        self._config.write_text(tomli_w.dumps(values | {"metrics": {"port": self.port}}))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Tuner:
        command = [sys.executable, "-m", "skyscraper_tuner", "--config", str(self._config)]
        self._process = spawn(command, self.log)
        return self

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(30)

    def page(self, name: str) -> str:
        """Of its HTTP face; empty while it does not answer well."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def metric(self, line: str) -> float:
        """Of the metric whose line begins so; 0 where there is none."""
        found = [one for one in self.page("metrics").splitlines() if one.startswith(line + " ")]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A broker per test: there is one sky.plans to a broker."""
    with LocalBroker(tmp_path / "kafka") as broker:
        town = Town(broker, tmp_path / "town")
        yield town
        town.close()


@pytest.fixture
def eventually(town: Town) -> Callable[..., None]:
    def wait(good: Callable[[], Any], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not good():
            assert time.monotonic() < until, f"not in {seconds:g} s\n{town.logs}"
            time.sleep(0.1)

    return wait
