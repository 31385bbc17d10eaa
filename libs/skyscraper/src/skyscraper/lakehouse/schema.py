"""A pipeline's row schema as Iceberg and Arrow see it, and a row of the bus as a record of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
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


def missing_columns(schema: RowSchema, table: Schema) -> list[Column]:
    """Columns the table lacks. Raises LakehouseError where the table cannot take the schema's rows."""
    missing = []
    for column in table_columns(schema):
        field = next((field for field in table.fields if field.name == column.name), None)
        if field is None:
            if not column.nullable:
                raise LakehouseError(
                    f"column {column.name} is new and not nullable: old rows have no value for it; make it nullable, "
                    "or give the pipeline another name"
                )
            missing.append(column)
        elif field.field_type != _ICEBERG[column.type]:
            raise LakehouseError(
                f"column {column.name} is {field.field_type} in the table and {column.type.name} in the pipeline; "
                "give it another name"
            )
    return missing


def iceberg_type(column: Column) -> IcebergType:
    return _ICEBERG[column.type]


def parse_row(value: bytes | None, columns: Sequence[Column]) -> tuple[dict[str, Any], set[str]]:
    """A row as written to the bus, checked, and the names in it that the table does not know (which are left out).

    Raises BadRow: `not_json`, `no_identity`, `missing_column` or `wrong_type`.
    """
    try:
        fields = json.loads(value or b"")
    except ValueError as error:
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
        raise BadRow("wrong_type", f"column {column.name} wants {column.type.name}, got {value!r:.80}")
    if isinstance(value, int) and column.type is ColumnType.INT64 and not -(2**63) <= value < 2**63:
        raise BadRow("wrong_type", f"column {column.name}: {value} does not fit 64 bits")
    if isinstance(value, str) and column.type is ColumnType.TIMESTAMP:
        try:
            time = datetime.fromisoformat(value)
        except ValueError as error:
            raise BadRow("wrong_type", f"column {column.name}: {value!r:.80} is not a time (RFC 3339)") from error
        if time.tzinfo is None:
            raise BadRow("wrong_type", f"column {column.name}: {value!r:.80} has no time zone")
        return time
    return value
