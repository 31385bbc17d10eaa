"""A pipeline's row schema as Iceberg and Arrow see it, and a row of the bus as a record of both."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from skyscraper.lakehouse.errors import BadRow, LakehouseError
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

IDENTITY = (
    Column("_stream", ColumnType.STRING, "The camera."),
    Column("_segment", ColumnType.STRING, "The segment that the row comes from."),
    Column("_row", ColumnType.INT64, "The row's number within its segment."),
)
_ICEBERG: dict[ColumnType, IcebergType] = {
    ColumnType.STRING: StringType(),
    ColumnType.INT64: LongType(),
    ColumnType.FLOAT64: DoubleType(),
    ColumnType.BOOL: BooleanType(),
    ColumnType.TIMESTAMP: TimestamptzType(),
}
_ARROW: dict[ColumnType, pa.DataType] = {
    ColumnType.STRING: pa.string(),
    ColumnType.INT64: pa.int64(),
    ColumnType.FLOAT64: pa.float64(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}
_PYTHON: dict[ColumnType, tuple[type, ...]] = {
    ColumnType.STRING: (str,),
    ColumnType.INT64: (int,),
    ColumnType.FLOAT64: (int, float),
    ColumnType.BOOL: (bool,),
    ColumnType.TIMESTAMP: (str,),
}


def table_columns(schema: RowSchema) -> tuple[Column, ...]:
    return (*IDENTITY, *schema.columns)


def iceberg_schema(schema: RowSchema) -> Schema:
    return Schema(
        *(
            NestedField(
                number, column.name, _ICEBERG[column.type], required=not column.nullable, doc=column.description
            )
            for number, column in enumerate(table_columns(schema), start=1)
        )
    )


@dataclass(frozen=True)
class Evolution:
    """What a table needs before it can take a schema's rows."""

    add: tuple[Column, ...] = ()
    """Columns that the table lacks."""
    relax: tuple[str, ...] = ()
    """Columns that may be null from now on."""


def evolution(schema: RowSchema, table: Schema) -> Evolution:
    """Raises LakehouseError where the table cannot take the schema's rows."""
    columns = {column.name: column for column in table_columns(schema)}
    fields = {field.name: field for field in table.fields}
    for name, column in columns.items():
        if name not in fields and not column.nullable:
            raise LakehouseError(
                f"column {name} is new and not nullable: old rows have no value for it; make it nullable, "
                "or give the pipeline another name"
            )
        if name in fields and fields[name].field_type != _ICEBERG[column.type]:
            raise LakehouseError(
                f"column {name} is {fields[name].field_type} in the table and {column.type.name} in the pipeline; "
                "give it another name"
            )
    # A column that the pipeline no longer has stays in the table, for its old rows.
    relax = [
        name for name, field in fields.items() if field.required and (name not in columns or columns[name].nullable)
    ]
    return Evolution(tuple(column for name, column in columns.items() if name not in fields), tuple(relax))


def iceberg_type(column: Column) -> IcebergType:
    return _ICEBERG[column.type]


def parse_row(value: bytes | None, columns: Sequence[Column]) -> tuple[dict[str, Any], set[str]]:
    """A row as written to the bus, checked, and the names in it that the table does not know (which are left out).

    Raises BadRow: `not_json`, `no_identity`, `missing_column` or `wrong_type`.
    """
    try:
        fields = json.loads(value or b"", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRow("not_json", f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadRow("not_json", f"a row is a JSON object, this is {type(fields).__name__}")
    row = {column.name: _checked(column, fields.get(column.name)) for column in columns}
    return row, fields.keys() - row.keys()


def arrow_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pa.Table:
    schema = pa.schema([pa.field(column.name, _ARROW[column.type], nullable=column.nullable) for column in columns])
    return pa.Table.from_pylist(list(rows), schema=schema)


def _checked(column: Column, value: object) -> object:
    if value is None:
        if column.nullable:
            return None
        reason = "no_identity" if column in IDENTITY else "missing_column"
        raise BadRow(reason, f"column {column.name} has no value")
    if not isinstance(value, _PYTHON[column.type]) or (isinstance(value, bool) and column.type is not ColumnType.BOOL):
        raise _wrong(column, value, f"wants {column.type.name}")
    try:
        return _CONVERSIONS[column.type](value)
    except (ValueError, OverflowError) as error:
        raise _wrong(column, value, str(error)) from error


def _wrong(column: Column, value: object, why: str) -> BadRow:
    # ascii: what is logged and sent on must be text that every encoding takes.
    return BadRow("wrong_type", f"column {column.name}: {ascii(value):.80}: {why:.200}")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is JavaScript, not JSON")


def _text(value: str) -> str:
    # JSON can spell half of a surrogate pair, UTF-8 (and so Parquet) cannot.
    value.encode()
    return value


def _int64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("does not fit 64 bits")
    return value


def _float64(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise OverflowError("does not fit a 64-bit float")
    return number


def _time(value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("has no time zone")
    return time.astimezone(UTC)


_CONVERSIONS: dict[ColumnType, Callable[[Any], object]] = {
    ColumnType.STRING: _text,
    ColumnType.INT64: _int64,
    ColumnType.FLOAT64: _float64,
    ColumnType.BOOL: bool,
    ColumnType.TIMESTAMP: _time,
}
