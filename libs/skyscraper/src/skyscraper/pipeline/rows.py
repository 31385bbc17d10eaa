"""The shape of a pipeline's rows, and their JSON form on the bus."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from skyscraper.errors import BadSegment
from skyscraper.v1 import profile_pb2

Value = str | int | float | bool | datetime | None
Row = Mapping[str, Value]


class ColumnType(Enum):
    STRING = profile_pb2.COLUMN_TYPE_STRING
    INT64 = profile_pb2.COLUMN_TYPE_INT64
    FLOAT64 = profile_pb2.COLUMN_TYPE_FLOAT64
    BOOL = profile_pb2.COLUMN_TYPE_BOOL
    TIMESTAMP = profile_pb2.COLUMN_TYPE_TIMESTAMP


@dataclass(frozen=True)
class Column:
    name: str
    type: ColumnType
    description: str
    nullable: bool = False


@dataclass(frozen=True)
class RowSchema:
    """Columns in order. Names that begin with an underscore belong to the row's identity and are added by the decoder:
    `_stream` and `_segment` (strings) and `_row` (int64, counts from 0 within the segment)."""

    columns: tuple[Column, ...]
    event_time_column: str

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names) or any(name.startswith("_") for name in names):
            raise ValueError(f"column names must be unique and must not begin with an underscore: {names}")
        if not any(c.name == self.event_time_column and c.type is ColumnType.TIMESTAMP for c in self.columns):
            raise ValueError(f"event_time_column {self.event_time_column!r} must be one of the timestamp columns")

    def to_proto(self) -> profile_pb2.RowSchema:
        return profile_pb2.RowSchema(
            event_time_column=self.event_time_column,
            columns=[
                profile_pb2.Column(name=c.name, type=c.type.value, nullable=c.nullable, description=c.description)
                for c in self.columns
            ],
        )

    @classmethod
    def from_proto(cls, message: profile_pb2.RowSchema) -> RowSchema:
        return cls(
            columns=tuple(
                Column(name=c.name, type=ColumnType(c.type), nullable=c.nullable, description=c.description)
                for c in message.columns
            ),
            event_time_column=message.event_time_column,
        )

    def encode(self, row: Row, *, stream_id: str, segment: str, index: int) -> bytes:
        """The row as JSON with its identity. Raises BadSegment("row_schema") where it does not fit the schema."""
        extra = row.keys() - {column.name for column in self.columns}
        if extra:
            raise BadSegment("row_schema", f"row {index} of {segment} has columns its schema does not: {sorted(extra)}")
        fields: dict[str, object] = {"_stream": stream_id, "_segment": segment, "_row": index}
        for column in self.columns:
            fields[column.name] = _json_value(column, row.get(column.name), segment, index)
        return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def _json_value(column: Column, value: Value, segment: str, index: int) -> object:
    if value is None and column.nullable:
        return None
    # bool is an int to Python, but a count of True people is a bug.
    fits = {
        ColumnType.STRING: isinstance(value, str),
        ColumnType.INT64: isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63,
        ColumnType.FLOAT64: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
        ColumnType.BOOL: isinstance(value, bool),
        ColumnType.TIMESTAMP: isinstance(value, datetime) and value.tzinfo is not None,
    }[column.type]
    if not fits:
        raise BadSegment(
            "row_schema", f"row {index} of {segment}: column {column.name} wants {column.type.name}, got {value!r:.80}"
        )
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value
