"""What is predicted of retention, against a broker that really deletes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from skyscraper.bus.admin import create_topics
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.headroom import RECORD_OVERHEAD_BYTES, Buffer
from skyscraper.bus.topics import TopicSpec
from skyscraper.control.headroom import Backlog, headroom
from skyscraper.localkafka import LocalBroker

pytestmark = pytest.mark.broker

MIB = 1 << 20
RECORD = 100_000
NUMBERS = itertools.count()


@pytest.fixture
def client(session_broker: LocalBroker) -> dict[str, Any]:
    return {"bootstrap.servers": session_broker.bootstrap_servers, "log_level": 2}


@pytest.fixture
def topic(client: dict[str, Any]) -> Iterator[str]:
    name = f"buffer-{next(NUMBERS)}"
    settings = {"retention.bytes": str(4 * MIB), "retention.ms": "-1", "segment.bytes": str(MIB)}
    create_topics(client, [TopicSpec(name, 2, settings)], replication_factor=1)
    wait_until_known(client, name)
    yield name
    # A client that is dropped takes its requests with it.
    admin = AdminClient(client)
    admin.delete_topics([name])[name].result(10)


def wait_until_known(client: dict[str, Any], topic: str) -> None:
    """The controller has created it; the broker learns of it in a moment."""
    until = time.monotonic() + 20
    while True:
        try:
            buffer = Buffer(client, topic)
            buffer.retention()
            buffer.bounds([0, 1])
        except (BusError, BusTimeout):
            assert time.monotonic() < until, "the topic did not appear"
            time.sleep(0.1)
        else:
            return


def set_retention(client: dict[str, Any], topic: str, **settings: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient(client)
    admin.incremental_alter_configs([resource])[resource].result(10)
    # The controller has it now, the broker in a moment.
    until = time.monotonic() + 20
    while any(admin.describe_configs([resource])[resource].result(10)[one.name].value != one.value for one in entries):
        assert time.monotonic() < until, "the broker did not take its new settings"
        time.sleep(0.1)


def test_retention_by_bytes_never_deletes_before_the_predicted_bytes(client: dict[str, Any], topic: str) -> None:
    """The first record is the oldest unprocessed; records of one size come until Kafka deletes it."""
    buffer = Buffer(client, topic)
    retention = buffer.retention()
    assert (retention.seconds, retention.bytes_per_partition, retention.log_segment_bytes) == (None, 4 * MIB, MIB)
    assert retention.check_seconds == 1.0
    producer = Producer(client)
    # The broker looks at nothing in its first half minute: the other partition tells when it does.
    for _ in range(60):
        producer.produce(topic, b"x" * RECORD, partition=1)
    producer.flush(10)
    until = time.monotonic() + 90
    while buffer.bounds([1])[1].low == 0:
        assert time.monotonic() < until, "Kafka did not delete anything"
        time.sleep(0.1)
    # Of headroom, in bytes, as predicted after each record: with one byte per second, seconds are bytes.
    predicted: list[tuple[int, float, float]] = []
    while (bounds := buffer.bounds([0])[0]).low == 0:
        assert time.monotonic() < until, "Kafka did not delete anything"
        time.sleep(0.1)
        written = bounds.high * RECORD
        if predicted and written > predicted[0][0] + predicted[0][2]:
            # It may go at any moment now; only the broker's next check is missing.
            continue
        found = headroom(Backlog(0.0, bounds.high * (RECORD + RECORD_OVERHEAD_BYTES), 1.0), retention)
        predicted.append((written, found.guaranteed_seconds, found.latest_seconds))
        producer.produce(topic, b"x" * RECORD, partition=0)
        producer.flush(10)
    really = bounds.high * RECORD
    assert len(predicted) > 20
    for written, guaranteed, _ in predicted:
        assert written + guaranteed <= really
    first = predicted[0]
    assert first[1] > really / 2, "the guarantee is absurdly short"


def test_retention_by_time_never_deletes_before_the_predicted_time(client: dict[str, Any], topic: str) -> None:
    set_retention(client, topic, retention_ms="6000", retention_bytes="-1")
    buffer = Buffer(client, topic)
    retention = buffer.retention()
    assert (retention.seconds, retention.bytes_per_partition) == (6.0, None)
    producer = Producer(client)
    started = time.time()
    for partition in (0, 1):
        for _ in range(3):
            producer.produce(topic, b"x" * RECORD, partition=partition)
            producer.flush(10)
            time.sleep(0.2)
    # The second record of partition 0, the third of partition 1.
    oldest = {0: 1, 1: 2}
    predicted: list[tuple[int, float, float]] = []
    gone: dict[int, float] = {}
    until = time.monotonic() + 60
    while len(gone) < 2:
        assert time.monotonic() < until, "Kafka did not delete anything"
        found = buffer.backlogs(oldest, {0: RECORD, 1: RECORD}, {0: RECORD, 1: RECORD}, now_seconds=time.time())
        now = time.time()
        for partition, bounds in buffer.bounds(oldest).items():
            if bounds.low <= oldest[partition]:
                predicted.append((partition, now, headroom(found[partition], retention).guaranteed_seconds))
            else:
                gone.setdefault(partition, time.time())
        time.sleep(0.1)
    assert len(predicted) > 10
    for partition, asked, guaranteed in predicted:
        # Found a second at most too early; a backlog that Kafka has just deleted has no age any more.
        if asked < gone[partition] - 0.5:
            assert asked + guaranteed <= gone[partition]
    first = predicted[0]
    assert first[2] > (gone[first[0]] - started) / 3, "the guarantee is absurdly short"


def test_the_oldest_records_time_is_found_without_reading_it(client: dict[str, Any], topic: str) -> None:
    """Also where publishers' clocks went back: what lies before it in the log holds a record as well."""
    producer = Producer(client)
    start = int(time.time()) * 1000 - 3_600_000
    for number in range(200):
        producer.produce(topic, b"x", partition=0, timestamp=start + number * 2_000)
    for at in (50_000, 10_000, 20_000, 90_000):
        producer.produce(topic, b"x", partition=1, timestamp=start + at)
    producer.flush(10)
    buffer = Buffer(client, topic)
    for offset in (0, 1, 77, 199):
        found = buffer.held_since({0: offset})[0]
        assert start / 1000 + offset * 2 - 1 <= found <= start / 1000 + offset * 2
    for offset, at in ((0, 50), (1, 50), (2, 50), (3, 90)):
        found = buffer.held_since({1: offset})[1]
        assert start / 1000 + at - 1 <= found <= start / 1000 + at
    # Not written yet, or nothing at all.
    assert buffer.held_since({0: 200, 1: 17}) == {}


def test_retention_is_read_again_as_operators_change_it(client: dict[str, Any], topic: str) -> None:
    now = [0.0]
    buffer = Buffer(client, topic, clock=lambda: now[0])
    assert buffer.retention().bytes_per_partition == 4 * MIB
    set_retention(client, topic, retention_bytes=str(8 * MIB))
    assert buffer.retention().bytes_per_partition == 4 * MIB
    now[0] = 61.0
    assert buffer.retention().bytes_per_partition == 8 * MIB


def test_an_absent_topic_and_an_absent_broker_are_told_apart(client: dict[str, Any]) -> None:
    with pytest.raises(BusError, match="nowhere"):
        Buffer(client, "nowhere", request_seconds=20.0).bounds([0])
    away = Buffer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, request_seconds=1.0)
    with pytest.raises(BusTimeout):
        away.bounds([0])
    with pytest.raises(BusTimeout):
        away.retention()
