"""Partitions are given out once, however many publishers start in the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from skyscraper.bus.register import BusUnreachable, read_register
from skyscraper.bus.streams import owners, register_streams
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


def test_no_broker_is_said_within_the_deadline() -> None:
    with pytest.raises(BusUnreachable):
        read_register({"bootstrap.servers": "127.0.0.1:1"}, deadline_seconds=1.0)
