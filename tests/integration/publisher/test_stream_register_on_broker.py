"""Partitions are given out once, however many publishers start in the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Producer
from skyscraper.bus.register import BusUnreachable, change_register, read_register
from skyscraper.bus.stream_edits import adding, editing
from skyscraper.bus.streams import owners, register_streams
from skyscraper.bus.topics import STREAMS
from skyscraper.v1.stream_pb2 import Stream

pytestmark = pytest.mark.broker


def test_publishers_that_start_at_once_never_share_a_partition(kafka: Any) -> None:
    client = {"bootstrap.servers": kafka.servers}

    def start(number: int) -> int:
        name = f"race-{number}"
        return register_streams(client, [(Stream(stream_id=name), None)], deadline_seconds=60)[name]

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(start, range(8)))
    assert len(set(given)) == 8
    register, _ = read_register(client, deadline_seconds=20)
    assert {owners(register)[given[number]] for number in range(8)} == {f"race-{number}" for number in range(8)}
    assert [start(number) for number in range(8)] == given


def test_what_a_publisher_does_not_say_stays_as_somebody_else_wrote_it(kafka: Any) -> None:
    client = {"bootstrap.servers": kafka.servers}
    register_streams(client, [(Stream(stream_id="kept", pipeline="counting", weight=2), None)], deadline_seconds=20)
    register_streams(client, [(Stream(stream_id="kept", source="new.mp4"), None)], deadline_seconds=20)
    stream = read_register(client, deadline_seconds=20)[0]["kept"].stream
    assert (stream.pipeline, stream.weight, stream.source) == ("counting", 2, "new.mp4")


def test_of_editors_of_one_stream_at_the_same_moment_none_loses_an_edit(kafka: Any) -> None:
    client = {"bootstrap.servers": kafka.servers}
    change_register(client, adding(Stream(stream_id="edited"), None), deadline_seconds=20)

    def edit(number: int) -> None:
        change = editing("edited", lambda entry: entry.configuration.update({f"knob-{number}": str(number)}))
        change_register(client, change, deadline_seconds=60)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(edit, range(12)))
    stream = read_register(client, deadline_seconds=20)[0]["edited"].stream
    assert dict(stream.configuration) == {f"knob-{number}": str(number) for number in range(12)}


def test_an_edit_does_not_cost_a_stream_its_partition_where_another_claims_it_too(kafka: Any) -> None:
    client = {"bootstrap.servers": kafka.servers}
    register = change_register(client, adding(Stream(stream_id="first"), None), deadline_seconds=20)
    number = register["first"].stream.partition
    # A program of somebody else's that does not look before it writes.
    producer = Producer(client)
    producer.produce(STREAMS, Stream(stream_id="second", partition=number).SerializeToString(), b"second")
    assert producer.flush(20) == 0
    change = editing("first", lambda entry: setattr(entry, "weight", 2.0))
    change_register(client, change, deadline_seconds=20)
    assert owners(read_register(client, deadline_seconds=20)[0])[number] == "first"


def test_no_broker_is_said_within_the_deadline() -> None:
    with pytest.raises(BusUnreachable):
        read_register({"bootstrap.servers": "127.0.0.1:1"}, deadline_seconds=1.0)
