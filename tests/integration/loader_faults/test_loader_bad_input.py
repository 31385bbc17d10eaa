"""Promise 5 for rows: what does not fit is an event, told and counted; other rows and other tables go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import TopicPartition
from skyscraper.bus.topics import DEAD_LETTERS
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

from .conftest import SCHEMA, LoaderProcess, Rows, eventually, read_all, row_json

pytestmark = pytest.mark.broker

DOGS = Column("dogs", ColumnType.INT64, "How many dogs.", nullable=True)
WITH_DOGS = RowSchema((*SCHEMA.columns, DOGS), "at")
BAD = {
    b"\xff\x00 no json": "not_json",
    b"": "not_json",
    b"[" * 100_000: "not_json",
    b'{"people": 1}': "no_identity",
    row_json(0).replace(b'"people":0', b'"people":"many"'): "wrong_type",
    row_json(0).replace(b'"people":0', b'"people":1' + b"0" * 400): "wrong_type",
    row_json(0).replace(b"gate-0/1/0", b"\\ud800"): "wrong_type",
    row_json(0).replace(b'"people":0', b'"persons":0'): "missing_column",
}


def test_malformed_rows_become_dead_letters(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows = make_rows()
    rows.send(range(10))
    for value in BAD:
        rows.send_raw(value)
    rows.flush()
    rows.send(range(10, 20))
    loader = make_loader(rows)
    rows.wait()
    rows.assert_complete()
    letters = {
        headers["sky_offset"]: (value or b"", headers["sky_reason"], headers["sky_partition"])
        for value, headers in read_all(client, DEAD_LETTERS, 2)
        if headers.get("sky_topic") == rows.topic
    }
    assert letters == {str(10 + place): (value, reason, "0") for place, (value, reason) in enumerate(BAD.items())}
    assert loader.metric("skyscraper_loader_rejected_rows_total") == len(BAD)
    assert len(loader.events("starting")) == 1


def test_message_as_large_as_kafka_takes(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    from confluent_kafka import Producer

    rows = make_rows()
    producer = Producer({**client, "message.max.bytes": 8 * 1024 * 1024})
    producer.produce(rows.topic, b"x" * (8 * 1024 * 1024 - 200), partition=0)
    assert producer.flush(20) == 0
    rows.send(range(5))
    make_loader(rows)
    rows.wait()
    rows.assert_complete()


def test_newer_profile_adds_a_column_while_the_loader_runs(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    """No row that came after the profile loses its new column, however soon it came."""
    rows = make_rows()
    loader = make_loader(rows)
    rows.send(range(5))
    rows.wait()
    rows.profile(WITH_DOGS)
    rows.send(range(5, 10), schema=WITH_DOGS, dogs=2)
    rows.wait()
    rows.assert_complete()
    assert [row["dogs"] for row in rows.loaded("SELECT dogs FROM {} ORDER BY _row")] == [None] * 5 + [2] * 5
    assert loader.metric("skyscraper_loader_unknown_columns_total") == 0


def test_column_that_no_profile_knows_is_counted_and_left_out(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows = make_rows()
    loader = make_loader(rows)
    rows.send(range(5), schema=WITH_DOGS, dogs=2)
    rows.wait()
    rows.assert_complete()
    assert loader.metric("skyscraper_loader_unknown_columns_total") == 5


@pytest.mark.timeout(180)
def test_profile_the_table_cannot_take_lets_rows_wait_until_it_is_mended(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows, other = make_rows(), make_rows()
    loader = make_loader(rows, other)
    rows.send(range(5))
    rows.wait()
    rows.profile(RowSchema((SCHEMA.columns[0], Column("people", ColumnType.STRING, "")), "at"))
    eventually(lambda: loader.metric('skyscraper_loader_waiting_pipelines{reason="schema"}') == 1)
    rows.send(range(5, 2505))
    other.send(range(10))
    other.wait()
    other.assert_complete()
    assert len(rows.keys()) == 5
    assert "people is long in the table and STRING" in loader.events("table_refused")[0]["error"]
    rows.profile(WITH_DOGS)
    rows.wait()
    rows.assert_complete()
    assert loader.metric("skyscraper_loader_rejected_rows_total") == 0


def delete_before(client: dict[str, Any], topic: str, offset: int) -> None:
    """As retention does, but now."""
    admin = AdminClient(client)
    places = admin.delete_records([TopicPartition(topic, 0, offset)])
    for future in places.values():
        future.result(20)


@pytest.mark.timeout(180)
def test_retention_overtakes_a_loader_whose_rows_wait(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows = make_rows()
    loader = make_loader(rows)
    rows.send(range(10))
    rows.wait()
    rows.profile(RowSchema((SCHEMA.columns[0], Column("people", ColumnType.STRING, "")), "at"))
    eventually(lambda: loader.metric('skyscraper_loader_waiting_pipelines{reason="schema"}') == 1)
    rows.send(range(10, 40))
    rows.send(range(5), partition=1)
    delete_before(client, rows.topic, 30)
    rows.profile()
    rows.sent = [(stream, number) for stream, number in rows.sent if stream != "gate-0" or not 10 <= number < 30]
    rows.wait()
    rows.assert_complete()
    assert loader.metric("skyscraper_loader_lost_rows_total") == 20
    assert json.dumps(loader.events("rows_lost_to_retention")).count('"offsets": 20') == 1
