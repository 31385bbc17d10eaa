"""Real clips, a real broker, the real service."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from skyscraper.bus.admin import create_topics
from skyscraper.bus.headers import SegmentHeaders, decode_headers
from skyscraper.bus.profiles import register_pipeline
from skyscraper.bus.topics import SEGMENTS, topic_specs
from skyscraper.bus.watermarks import watermarks
from skyscraper.localkafka.broker import LocalBroker
from skyscraper.pipeline import load_pipeline

FRAMES_PER_SECOND = 25
MakeClip = Callable[..., Path]


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    folder = tmp_path_factory.mktemp("clips")
    numbers = itertools.count()

    def make(codec: str = "libx264", suffix: str = ".mp4", *, frames: int = 200, gop: int = 25, **options: str) -> Path:
        path = folder / f"{next(numbers)}{suffix}"
        rng = np.random.default_rng(4)
        texture = rng.integers(0, 255, (128, 160, 3), dtype=np.uint8)
        with av.open(path, "w") as output:
            stream = output.add_stream(codec, rate=FRAMES_PER_SECOND, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = 160, 128
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.gop_size = gop
            for index in range(frames):
                picture = np.roll(texture, index * 3, axis=1)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = index, Fraction(1, FRAMES_PER_SECOND)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    return make


@dataclass(frozen=True)
class Stored:
    """A segment as it lies in the topic."""

    key: str
    partition: int
    headers: SegmentHeaders
    value: bytes

    @property
    def place(self) -> tuple[int, int]:
        assert self.headers.epoch is not None
        assert self.headers.sequence is not None
        return self.headers.epoch, self.headers.sequence


class Kafka:
    def __init__(self, folder: Path, partitions: int) -> None:
        self.broker = LocalBroker(folder)
        self.broker.start()
        specs = topic_specs(
            partitions=partitions, pipelines=(), retention_seconds=3600, retention_bytes_per_partition=1 << 30
        )
        client = {"bootstrap.servers": self.broker.bootstrap_servers}
        create_topics(client, specs, replication_factor=1)
        register_pipeline(client, load_pipeline("counting"))

    @property
    def servers(self) -> str:
        return self.broker.bootstrap_servers

    def segments(self, stream_id: str) -> list[Stored]:
        """Every segment of the stream, in the order of its partition."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "test"})
        try:
            # The ends as of now: somebody who goes on publishing would never let the reader come to an end.
            ends = {}
            for number in consumer.list_topics(SEGMENTS, timeout=10).topics[SEGMENTS].partitions:
                low, high = watermarks(consumer, SEGMENTS, number, deadline_seconds=10)
                if high > low:
                    ends[number] = high
            consumer.assign([TopicPartition(SEGMENTS, number, 0) for number in ends])
            found: list[Stored] = []
            until = time.monotonic() + 30
            while ends:
                assert time.monotonic() < until, "the broker did not give the topic's end"
                message = consumer.poll(1.0)
                if message is None or message.error() is not None:
                    continue
                number, offset = message.partition() or 0, message.offset() or 0
                if (message.key() or b"") == stream_id.encode() and offset < ends.get(number, 0):
                    raw = cast(list[tuple[str, bytes]] | None, message.headers())
                    headers, malformed = decode_headers(raw)
                    assert not malformed
                    found.append(Stored(stream_id, number, headers, message.value() or b""))
                if offset + 1 >= ends.get(number, 0):
                    ends.pop(number, None)
            return found
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    started = Kafka(tmp_path_factory.mktemp("kafka"), partitions=24)
    yield started
    started.broker.stop()


class Service:
    """`python -m skyscraper_publisher` with its configuration."""

    def __init__(self, folder: Path, servers: str, streams: list[dict[str, Any]], **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        self._config = folder / "publisher.toml"
        self.log_path = folder / "log"
        lines = ['log_format = "json"', 'log_level = "debug"']
        spill = {"folder": str(folder / "spill"), "after_seconds": 0.5, **settings.pop("spill", {})}
        groups = {"kafka": {"bootstrap_servers": servers}, "spill": spill, **settings}
        lines += [f"{name} = {json.dumps(value)}" for name, value in groups.items() if not isinstance(value, dict)]
        for name, group in groups.items():
            if isinstance(group, dict):
                lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in group.items())]
        for stream in streams:
            lines += ["[[streams]]", *(f"{key} = {json.dumps(value)}" for key, value in stream.items())]
        self._config.write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Service:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skyscraper_publisher", "--config", str(self._config)], stdout=log, stderr=log
            )
        return self

    def wait(self, seconds: float = 60) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self._process is not None
        os.kill(self._process.pid, number)
        return self._process.wait(40)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def metric(self, line_start: str) -> float:
        events = [json.loads(line) for line in self.log.splitlines() if '"starting"' in line]
        if not events:
            return 0.0
        with (
            suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{events[-1]['metrics_port']}/metrics") as page,
        ):  # noqa: S310
            for line in page.read().decode().splitlines():
                if line.startswith(line_start):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(servers: str, streams: list[dict[str, Any]], **settings: Any) -> Service:
        made.append(Service(tmp_path / "service", servers, streams, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def eventually(check: Callable[[], bool], seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    return eventually
