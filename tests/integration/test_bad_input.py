"""Promise 5 of the design: bad input is an event, not an outage.

One installation; each scenario has a stream of its own and publishes bad segments to it. A bad segment ends in
sky.dead-letters with its reason and a counter, the good segment after it is processed, and so is everybody else's.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import av
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.headers import Headers, SegmentHeaders, encode_headers
from skyscraper.bus.streams import register_streams
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.media.street import Street, StreetSpec
from skyscraper.models.repository import install_models
from skyscraper.v1 import report_pb2, stream_pb2

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(240)]

MODEL = "nanodet-g"
PARTITIONS = 16
CONFIGURATION = {"model": MODEL, "frame_rate": "1", "input_size": "224"}
HEADERS = SegmentHeaders(
    epoch=1, sequence=0, time=datetime(2026, 1, 1, tzinfo=UTC), duration_seconds=2.0, codec="h264", frames=20
)


def encode(codec: str = "libx264", container_format: str = "mpegts") -> bytes:
    """Two seconds of street."""
    street, file = Street(StreetSpec(density=5)), io.BytesIO()
    with av.open(file, "w", format=container_format) as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=10, options={"g": "10"}))
        stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
        for number in range(20):
            image, _ = street.frame(number)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@dataclass
class Site:
    """The running installation, and a way to publish anything into it."""

    stack: Stack
    watch: Watch
    producer: Producer
    good: bytes

    def publish(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers | SegmentHeaders | None
    ) -> None:
        if isinstance(headers, SegmentHeaders):
            headers = encode_headers((key or b"").decode(), headers)
        self.producer.produce(topics.SEGMENTS, value, key, partition, headers=[*(headers or [])])
        assert self.producer.flush(20) == 0

    def reports(self, partition: int, count: int, *, seconds: float = 40) -> list[report_pb2.SegmentReport]:
        deadline = time.monotonic() + seconds
        while True:
            found = [one.report for one in self.watch.totals.reports if one.report.partition == partition]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count, found
                return found
            self.watch.poll(0.2)

    def dead_letter(self, partition: int) -> tuple[bytes, dict[str, bytes]]:
        consumer = Consumer(
            {
                **self.stack.client,
                "group.id": "test",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.assign([TopicPartition(topics.DEAD_LETTERS, partition, 0)])
        message = consumer.poll(10)
        consumer.close()
        assert message is not None
        headers: dict[str, bytes] = dict(message.headers() or [])  # type: ignore[arg-type]
        return message.value() or b"", headers

    def metric(self, name: str, label: str) -> float:
        page = self.stack.fetch("decoder", "metrics") or ""
        lines = [line for line in page.splitlines() if line.startswith(name) and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    install_models([MODEL])
    with Stack(tmp_path_factory.mktemp("bad-input"), partitions=PARTITIONS) as stack:
        stack.start_broker()
        stack.add_inference(models=[MODEL], warmup_shapes=[{"height": 224, "width": 224}])
        stack.add_decoder()
        stack.start()
        stack.wait_ready()
        watch = Watch(stack.client)
        # Both limits are raised so that it is the broker that refuses what is too large.
        producer = Producer({**stack.client, "message.max.bytes": 64 * 1024 * 1024, "compression.type": "none"})
        yield Site(stack, watch, producer, encode())
        watch.close()


def register(site: Site, stream_id: str, partition: int, configuration: dict[str, str] | None = None) -> None:
    stream = stream_pb2.Stream(stream_id=stream_id, pipeline="counting", configuration=configuration or CONFIGURATION)
    assert register_streams(site.stack.client, [(stream, partition)], deadline_seconds=20) == {stream_id: partition}


def unknown_codec(_: bytes) -> bytes:
    """A Matroska file whose codec nobody has heard of."""
    return encode("mpeg4", "matroska").replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY/KNOWS/")


def audio_only(_: bytes) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mp2", rate=48000)
        frame = av.AudioFrame(format="s16", layout="stereo", samples=1152)
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("partition", "name", "spoil", "reason"),
    [
        (0, "truncated", lambda good: good[: len(good) // 2], "truncated"),
        (1, "random-bytes", lambda _: random.Random(1).randbytes(100_000), "corrupt"),
        (2, "zero-length", lambda _: b"", "empty"),
        (3, "unknown-codec", unknown_codec, "unknown_codec"),
        (4, "audio-only", audio_only, "no_video"),
    ],
)
def test_a_bad_segment_is_set_aside_and_the_next_is_processed(
    site: Site, partition: int, name: str, spoil: object, reason: str
) -> None:
    assert callable(spoil)
    register(site, name, partition)
    bad = spoil(site.good)
    before = site.metric("skyscraper_decoder_dead_letters_total", f'"{reason}"')
    site.publish(partition, name.encode(), bad, HEADERS)
    site.publish(partition, name.encode(), site.good, replace(HEADERS, sequence=1))
    first, second = site.reports(partition, 2)
    assert (first.outcome, first.reason) == (report_pb2.OUTCOME_DEAD_LETTERED, reason)
    assert second.outcome == report_pb2.OUTCOME_PROCESSED
    assert second.missing_before == 0
    value, headers = site.dead_letter(partition)
    assert value == bad
    assert headers["sky_reason"] == reason.encode()
    assert headers["ce_id"] == f"{name}/1/0".encode()
    assert site.metric("skyscraper_decoder_dead_letters_total", f'"{reason}"') == before + 1


@pytest.mark.parametrize(
    ("partition", "key", "headers"),
    [
        (5, b"Gate 3!", []),
        (6, None, []),
        (7, b"\xff\xfe", []),
        (8, b"gate-8", encode_headers("gate-9", HEADERS)),
    ],
    ids=["not-an-id", "no-key", "not-text", "key-and-ce-id-differ"],
)
def test_a_wrong_stream_id_is_set_aside(site: Site, partition: int, key: bytes | None, headers: Headers) -> None:
    site.publish(partition, key, site.good, headers)
    (report,) = site.reports(partition, 1)
    assert (report.outcome, report.reason) == (report_pb2.OUTCOME_DEAD_LETTERED, "stream_id")
    assert b"stream" in site.dead_letter(partition)[1]["sky_detail"]


def test_a_segment_on_another_streams_partition_is_set_aside(site: Site) -> None:
    register(site, "lobby", 9)
    site.publish(10, b"lobby", site.good, HEADERS)
    (report,) = site.reports(10, 1)
    assert (report.outcome, report.reason) == (report_pb2.OUTCOME_DEAD_LETTERED, "wrong_partition")
    site.publish(9, b"lobby", site.good, HEADERS)
    assert site.reports(9, 1)[0].outcome == report_pb2.OUTCOME_PROCESSED


def test_a_segment_without_headers_from_an_unregistered_stream_is_processed(site: Site) -> None:
    site.publish(11, b"walk-in", site.good, None)
    (report,) = site.reports(11, 1)
    assert report.outcome == report_pb2.OUTCOME_PROCESSED
    assert report.segment_id == "walk-in/offset/11-0"
    assert report.duration_seconds == pytest.approx(2.0, abs=0.01)


def test_backlog_and_headroom_are_exported(site: Site) -> None:
    site.publish(11, b"walk-in", site.good, None)
    deadline = time.monotonic() + 30
    while not 3600 < site.metric("skyscraper_stream_headroom_seconds", '"walk-in"') <= site.stack.retention_seconds:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert site.metric("skyscraper_stream_backlog_segments", '"walk-in"') == 0


def test_malformed_headers_are_counted_and_the_segment_is_processed(site: Site) -> None:
    site.publish(12, b"noisy", site.good, [("ce_time", b"yesterday"), ("sky_seq", b"\xff"), ("x-other", b"1")])
    (report,) = site.reports(12, 1)
    assert report.outcome == report_pb2.OUTCOME_PROCESSED
    assert site.metric("skyscraper_decoder_malformed_headers_total", '"ce_time"') == 1
    assert site.metric("skyscraper_decoder_malformed_headers_total", '"sky_seq"') == 1


def test_a_repeated_segment_is_dropped_and_a_gap_is_counted(site: Site) -> None:
    for sequence in (0, 0, 3):
        site.publish(13, b"stutter", site.good, replace(HEADERS, sequence=sequence))
    site.publish(13, b"stutter", site.good, replace(HEADERS, epoch=0, sequence=9))
    first, repeated, after_gap, stale = site.reports(13, 4)
    assert first.outcome == report_pb2.OUTCOME_PROCESSED
    assert repeated.outcome == report_pb2.OUTCOME_DUPLICATE
    assert (after_gap.outcome, after_gap.missing_before) == (report_pb2.OUTCOME_PROCESSED, 2)
    assert (stale.outcome, stale.reason) == (report_pb2.OUTCOME_DEAD_LETTERED, "stale_epoch")


def test_a_message_of_20_megabytes_is_refused_with_a_clear_error(site: Site) -> None:
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            errors.append(error)

    site.producer.produce(topics.SEGMENTS, b"x" * 20_000_000, b"huge", 14, on_delivery=delivered)
    site.producer.flush(20)
    assert [error.code() for error in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    with pytest.raises(KafkaException, match="size"):
        Producer(site.stack.client).produce(topics.SEGMENTS, b"x" * 20_000_000, b"huge", 14)


def test_a_stream_whose_model_is_missing_waits_and_holds_nobody_up(site: Site) -> None:
    register(site, "ahead", 15, {**CONFIGURATION, "model": "yolov3-tiny"})
    site.publish(15, b"ahead", site.good, HEADERS)
    deadline = time.monotonic() + 30
    while not site.metric("skyscraper_decoder_retries_total", "ModelUnavailable"):
        assert time.monotonic() < deadline, "the missing model is not counted"
        time.sleep(0.2)
    site.publish(14, b"neighbour", site.good, HEADERS)
    assert site.reports(14, 1)[0].outcome == report_pb2.OUTCOME_PROCESSED
    assert not [one for one in site.watch.totals.reports if one.report.partition == 15]
    log = Path(site.stack.log_path("decoder")).read_text(encoding="utf-8")
    assert "model 'yolov3-tiny' is not served here" in log
