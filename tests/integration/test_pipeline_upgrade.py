"""A stream changes to another version of its pipeline while it runs: nothing lost, nothing twice, others untouched."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.headers import SegmentHeaders, encode_headers
from skyscraper.bus.register import change_register
from skyscraper.bus.stream_edits import editing
from skyscraper.bus.streams import register_streams
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.v1.stream_pb2 import Stream

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

# A pipeline without a model: one row a segment, which says who wrote it and how many it has seen.
PIPELINE = """
from skyscraper.pipeline import Column, ColumnType, Detections, RowSchema, Sampling, SegmentResult

class First:
    name = "probe"
    version = "1"
    knobs = ()
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "First frame."),
            Column("version", ColumnType.STRING, "Who wrote it."),
            Column("seen", ColumnType.INT64, "Segments seen so far."),
        ),
    )

    def sampling(self, configuration):
        return Sampling(1.0, width=64, height=64)

    def detect(self, frames, configuration, models):
        return []

    def track(self, state, context, frames, detections, configuration):
        seen = int(state or b"0") + 1
        row = {"event_time": context.time, "version": self.version, "seen": seen}
        return SegmentResult([row], quality=1.0, state=str(seen).encode())

class Second(First):
    version = "2"
    reads_state_of = frozenset({"1"})

class Third(First):
    version = "3"
"""
SECONDS = 60.0


def install(folder: Path, **entry_points: str) -> Path:
    """A folder that, on the Python path, is an installed package with these pipelines."""
    (folder / "probe-1.dist-info").mkdir(parents=True)
    (folder / "probe_pipeline.py").write_text(PIPELINE)
    (folder / "probe-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    lines = ["[skyscraper.pipelines]", *(f"{name} = probe_pipeline:{of}" for name, of in entry_points.items())]
    (folder / "probe-1.dist-info" / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def clip() -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(3)
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=5, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), format="bgr24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@dataclass
class Site:
    """The installation, and its streams by partition."""

    stack: Stack
    watch: Watch
    producer: Producer
    value: bytes
    streams: dict[str, int]
    old: Path
    new: Path

    def publish(self, numbers: range) -> None:
        for number in numbers:
            headers = SegmentHeaders(
                epoch=1,
                sequence=number,
                time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=2 * number),
                duration_seconds=2.0,
            )
            for stream_id, partition in self.streams.items():
                self.producer.produce(
                    topics.SEGMENTS,
                    self.value,
                    stream_id.encode(),
                    partition,
                    headers=[*encode_headers(stream_id, headers)],
                )
        assert self.producer.flush(20) == 0

    def use(self, stream_id: str, version: str) -> None:
        change = editing(stream_id, lambda entry: setattr(entry, "pipeline_version", version))
        change_register(self.stack.client, change, deadline_seconds=20)

    def processed(self, stream_id: str) -> int:
        self.watch.poll(0.2)
        view = self.watch.totals.streams.get(stream_id)
        assert view is None or (view.dead_lettered, view.lost, view.duplicates) == (0, 0, 0)
        return 0 if view is None else view.processed

    def until(self, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not check():
            self.stack.check()
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.1)

    def metric(self, start: str) -> float:
        page = self.stack.fetch("decoder", "metrics") or ""
        return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(start))

    def rows(self, stream_id: str) -> list[tuple[str, str, int]]:
        """Segment, version and count of every committed row, in order."""
        partition = self.streams[stream_id]
        consumer = Consumer(
            {**self.stack.client, "group.id": "test", "isolation.level": "read_committed", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(topics.rows_topic("probe"), partition, 0)])
        found: list[tuple[str, str, int]] = []
        while True:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                consumer.close()
                return found
            row: dict[str, Any] = json.loads(message.value() or b"")
            found.append((row["_segment"], row["version"], row["seen"]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    old = install(tmp_path / "old", probe="First")
    new = install(tmp_path / "new", probe="First", **{"probe@2": "Second", "probe@3": "Third"})
    monkeypatch.syspath_prepend(str(new))
    with Stack(tmp_path / "stack", partitions=2, pipelines=["probe"]) as stack:
        stack.start_broker()
        wanted = {"moving": 0, "steady": 1}
        streams = [(Stream(stream_id=name, pipeline="probe"), partition) for name, partition in wanted.items()]
        assert register_streams(stack.client, streams, deadline_seconds=20) == wanted
        stack.add_decoder()
        watch = Watch(stack.client)
        yield Site(stack, watch, Producer(stack.client), clip(), wanted, old, new)
        watch.close()


def start_decoder(site: Site, monkeypatch: pytest.MonkeyPatch, packages: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(packages))
    site.stack.start("decoder")
    site.stack.wait_ready("decoder")


def test_versions_run_side_by_side_and_a_missing_one_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    start_decoder(site, monkeypatch, site.old)
    site.publish(range(5))
    site.until(lambda: site.processed("moving") == 5 and site.processed("steady") == 5)

    # A roll-out begins from the wrong end: the stream is upgraded before the decoder is.
    site.use("moving", "2")
    site.publish(range(5, 10))
    site.until(lambda: site.processed("steady") == 10)
    site.until(lambda: site.metric('skyscraper_decoder_retries_total{reason="PipelineNotHere"}') >= 2)
    assert site.processed("moving") == 5
    site.stack.kill("decoder")
    start_decoder(site, monkeypatch, site.new)
    site.until(lambda: site.processed("moving") == 10)

    # In mid-run, with segments before and behind: to a version that does not read what the second has left.
    site.publish(range(10, 20))
    site.use("moving", "3")
    # Decoders follow sky.streams; how quickly depends on the machine.
    time.sleep(3.0)
    site.publish(range(20, 30))
    site.until(lambda: site.processed("moving") == 30 and site.processed("steady") == 30)
    assert site.metric('skyscraper_decoder_state_resets_total{reason="pipeline_changed"}') == 1

    names = [f"moving/1/{number}" for number in range(30)]
    moved = site.rows("moving")
    assert [segment for segment, _, _ in moved] == names
    versions = [version for _, version, _ in moved]
    assert versions == sorted(versions)
    assert versions[:10] == ["1"] * 5 + ["2"] * 5
    assert versions[20:] == ["3"] * 10
    # The second goes on from the first's state, the third begins anew.
    second, third = versions.index("2"), versions.index("3")
    assert [seen for _, _, seen in moved] == [*range(1, third + 1), *range(1, 30 - third + 1)]
    assert second == 5
    steady = [(f"steady/1/{number}", "1", number + 1) for number in range(30)]
    assert site.rows("steady") == steady
