"""Whatever bytes come in: a row that Arrow takes, or a reason. Nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skyscraper.lakehouse.errors import BadRow
from skyscraper.lakehouse.schema import arrow_table, parse_row, table_columns
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema, Value

SCHEMA = RowSchema(
    (
        Column("at", ColumnType.TIMESTAMP, ""),
        Column("count", ColumnType.INT64, ""),
        Column("score", ColumnType.FLOAT64, "", nullable=True),
        Column("label", ColumnType.STRING, "", nullable=True),
        Column("open", ColumnType.BOOL, "", nullable=True),
    ),
    "at",
)
COLUMNS = table_columns(SCHEMA)
GOOD = {"_stream": "gate-1", "_segment": "gate-1/1/7", "_row": 0, "at": "2026-01-01T12:00:00Z", "count": 3}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(lambda t: t.isoformat()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def taken_or_refused(value: bytes) -> None:
    try:
        row, _ = parse_row(value, COLUMNS)
    except BadRow as refused:
        told = refused
    else:
        assert arrow_table([row], COLUMNS).num_rows == 1
        return
    assert told.reason in ("not_json", "no_identity", "missing_column", "wrong_type")
    assert str(told).encode()


@given(st.binary())
def test_any_bytes(value: bytes) -> None:
    taken_or_refused(value)


# The first text of a process builds hypothesis' table of characters, which takes a second.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([column.name for column in COLUMNS]), JSON))
def test_any_value_in_any_column(values: dict[str, Any]) -> None:
    taken_or_refused(json.dumps(GOOD | values).encode())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_stream": None}, "no_identity"),
        ({"_row": "0"}, "wrong_type"),
        ({"count": None}, "missing_column"),
        ({"count": True}, "wrong_type"),
        ({"count": 2**63}, "wrong_type"),
        ({"score": 10**400}, "wrong_type"),
        ({"score": float("nan")}, "not_json"),
        ({"label": "\ud800"}, "wrong_type"),
        ({"at": "2026-01-01T12:00:00"}, "wrong_type"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "wrong_type"),
        ({"at": "noon"}, "wrong_type"),
    ],
)
def test_bad_value_has_its_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as refused:
        parse_row(json.dumps(GOOD | change).encode(), COLUMNS)
    assert refused.value.reason == reason


@pytest.mark.parametrize("value", [None, b"", b"[1]", b"\xff\xfe", b"[" * 200_000, b'"row"'])
def test_what_is_no_json_object(value: bytes | None) -> None:
    with pytest.raises(BadRow) as refused:
        parse_row(value, COLUMNS)
    assert refused.value.reason == "not_json"


def test_unknown_columns_are_named_and_left_out() -> None:
    row, unknown = parse_row(json.dumps(GOOD | {"newer": 1}).encode(), COLUMNS)
    assert unknown == {"newer"}
    assert "newer" not in row


def test_what_the_decoder_writes_comes_back() -> None:
    row: dict[str, Value] = {
        "at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "count": 3,
        "score": 0.5,
        "label": "ä",
        "open": True,
    }
    parsed, unknown = parse_row(SCHEMA.encode(row, stream_id="gate-1", segment="gate-1/1/7", index=4), COLUMNS)
    assert parsed == row | {"_stream": "gate-1", "_segment": "gate-1/1/7", "_row": 4}
    assert not unknown
