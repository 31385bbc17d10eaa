"""SQL over the tables: DuckDB reads the files that Iceberg's current snapshot consists of."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask, Table

from skyscraper.lakehouse.errors import LakehouseError


def run_query(catalog: Catalog, namespace: str, sql: str) -> pa.Table:
    """The result of one SQL statement. Tables are named after their pipelines, with or without the namespace.

    Raises LakehouseError with DuckDB's own message and the tables there are.
    """
    names = sorted(identifier[-1] for identifier in catalog.list_tables(namespace))
    with duckdb.connect() as connection:
        # Event times are UTC; a table printed in the reader's own zone would not say so.
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE SCHEMA {_quoted(namespace)}")
        for name in names:
            _register(connection, namespace, name, catalog.load_table(f"{namespace}.{name}"))
        try:
            # A statement that gives no rows (SET, say) answers with an empty table.
            result = connection.sql(sql)
            return pa.table({}) if result is None else result.to_arrow_table()
        except duckdb.Error as error:
            have = ", ".join(names) or "none yet: has the loader committed?"
            raise LakehouseError(f"{error}\nTables: {have}") from error


def _register(connection: duckdb.DuckDBPyConnection, namespace: str, name: str, table: Table) -> None:
    tasks = list(table.scan().plan_files())
    plain = all(not task.delete_files and _is_local(task.file.file_path) for task in tasks)
    if not (tasks and plain and _view_of_files(connection, namespace, name, table, tasks)):
        connection.register(f"{name} (arrow)", table.scan().to_arrow())
        _view(connection, namespace, name, f"SELECT * FROM {_quoted(f'{name} (arrow)')}")  # noqa: S608 - quoted
    connection.execute(f"CREATE VIEW {_quoted(name)} AS SELECT * FROM {_quoted(namespace)}.{_quoted(name)}")  # noqa: S608


def _view_of_files(
    connection: duckdb.DuckDBPyConnection, namespace: str, name: str, table: Table, tasks: Sequence[FileScanTask]
) -> bool:
    """DuckDB then reads only the columns and row groups that the query needs. False where it cannot."""
    paths = ", ".join("'" + task.file.file_path.removeprefix("file://").replace("'", "''") + "'" for task in tasks)
    columns = ", ".join(_quoted(field.name) for field in table.schema().fields)
    files = f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
    try:
        _view(connection, namespace, name, f"SELECT {columns} FROM {files}")  # noqa: S608 - quoted above
    except duckdb.Error:
        # A column that was added later is in none of the files yet: Iceberg's own reader fills it in.
        return False
    return True


def _view(connection: duckdb.DuckDBPyConnection, namespace: str, name: str, select: str) -> None:
    connection.execute(f"CREATE VIEW {_quoted(namespace)}.{_quoted(name)} AS {select}")


def _is_local(path: str) -> bool:
    return path.startswith(("file://", "/"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
