"""Rows fit their schema or become a dead letter; what the decoder writes the loader reads back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.errors import BadSegment
from skyscraper.lakehouse.errors import BadRow
from skyscraper.lakehouse.schema import parse_row, table_columns
from skyscraper.pipeline import Column, ColumnType, RowSchema
from skyscraper.pipeline.rows import Value

SCHEMA = RowSchema(
    (
        Column("event_time", ColumnType.TIMESTAMP, ""),
        Column("count", ColumnType.INT64, ""),
        Column("score", ColumnType.FLOAT64, ""),
        Column("label", ColumnType.STRING, "", nullable=True),
        Column("late", ColumnType.BOOL, "", nullable=True),
    ),
    "event_time",
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROW: dict[str, Value] = {"event_time": NOON, "count": 2, "score": 0.5, "label": "person", "late": False}

times = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
    min_value=datetime(1900, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
)


@given(
    times,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(),
    st.none() | st.booleans(),
)
def test_the_loader_reads_what_the_decoder_writes(
    time: datetime, count: int, score: float, label: str | None, late: bool | None
) -> None:
    row: dict[str, Value] = {"event_time": time, "count": count, "score": score, "label": label, "late": late}
    encoded = SCHEMA.encode(row, stream_id="gate-3", segment="gate-3/1/0", index=4)
    read, unknown = parse_row(encoded, table_columns(SCHEMA))
    assert unknown == set()
    assert read == {"_stream": "gate-3", "_segment": "gate-3/1/0", "_row": 4, **row}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("event_time", datetime(2026, 1, 1)),  # noqa: DTZ001 - without a zone on purpose
        ("event_time", "2026-01-01T00:00:00Z"),
        ("count", 1.0),
        ("count", True),
        ("count", 2**63),
        ("count", None),
        ("score", float("nan")),
        ("score", "0.5"),
        ("label", 3),
        ("late", 1),
    ],
)
def test_a_value_that_does_not_fit_is_named(column: str, value: object) -> None:
    with pytest.raises(BadSegment, match=f"column {column} wants") as caught:
        SCHEMA.encode({**ROW, column: value}, stream_id="s", segment="s/1/0", index=0)  # type: ignore[dict-item]
    assert caught.value.reason == "row_schema"


def test_a_column_the_schema_does_not_have_is_named() -> None:
    with pytest.raises(BadSegment, match="colour"):
        SCHEMA.encode({**ROW, "colour": "red"}, stream_id="s", segment="s/1/0", index=0)


def test_a_schema_survives_the_bus() -> None:
    assert RowSchema.from_proto(SCHEMA.to_proto()) == SCHEMA


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "not_json"),
        (b"{", "not_json"),
        (b"[1]", "not_json"),
        (b'{"event_time":"2026-01-01T00:00:00Z","count":1,"score":1}', "no_identity"),
        (b'{"_stream":"s","_segment":"g","_row":0,"count":1,"score":1}', "missing_column"),
        (b'{"_stream":"s","_segment":"g","_row":0,"event_time":"noon","count":1,"score":1}', "wrong_type"),
        (
            b'{"_stream":"s","_segment":"g","_row":0,"event_time":"2026-01-01T00:00:00","count":1,"score":1}',
            "wrong_type",
        ),
        (
            b'{"_stream":"s","_segment":"g","_row":true,"event_time":"2026-01-01T00:00:00Z","count":1,"score":1}',
            "wrong_type",
        ),
    ],
)
def test_a_message_that_is_no_row_is_told_by_a_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        parse_row(value, table_columns(SCHEMA))
    assert caught.value.reason == reason


def test_a_newer_writers_column_is_left_out_and_named() -> None:
    encoded = SCHEMA.encode(ROW, stream_id="s", segment="s/1/0", index=0)[:-1] + b',"colour":"red"}'
    row, unknown = parse_row(encoded, table_columns(SCHEMA))
    assert unknown == {"colour"}
    assert row["count"] == 2
