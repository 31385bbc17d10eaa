"""Query results on a terminal."""

from __future__ import annotations

import pyarrow as pa
from rich.console import Console
from rich.table import Table

# More rows are for --csv or a LIMIT.
_MAX_ROWS = 200


def print_table(result: pa.Table, console: Console) -> None:
    table = Table(show_edge=False, header_style="bold")
    for field in result.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if numeric else "left")
    for row in result.slice(0, _MAX_ROWS).to_pylist():
        table.add_row(*(_shown(value) for value in row.values()))
    console.print(table)
    if result.num_rows > _MAX_ROWS:
        console.print(f"({result.num_rows - _MAX_ROWS} more rows; add LIMIT, or --csv for all)")


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
