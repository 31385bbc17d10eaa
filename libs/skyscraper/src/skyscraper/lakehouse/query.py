"""SQL over the tables: DuckDB reads the files that Iceberg's current snapshot consists of."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask, Table

from skyscraper.lakehouse.errors import LakehouseError
from skyscraper.lakehouse.table import lakehouse_faults

# Statements that answer and change nothing. SHOW, DESCRIBE and SUMMARIZE are SELECTs to DuckDB.
_READS = frozenset((duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN))


def run_query(catalog: Catalog, namespace: str, sql: str) -> pa.Table:
    """The result of one SQL statement that reads. Tables are named after their pipelines, with or without the
    namespace; times are UTC.

    Raises LakehouseError with DuckDB's own message and the tables there are.
    """
    with lakehouse_faults(namespace):
        names = sorted(identifier[-1] for identifier in catalog.list_tables(namespace))
    have = ", ".join(names) or "none yet: has the loader committed?"
    with duckdb.connect() as connection:
        # Event times are UTC; a table printed in the reader's own zone would not say so.
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE SCHEMA {_quoted(namespace)}")
        try:
            _check(connection, sql)
            for name in _mentioned(names, sql):
                with lakehouse_faults(name):
                    table = catalog.load_table(f"{namespace}.{name}")
                _register(connection, namespace, name, table)
            return connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise LakehouseError(f"{error}\nTables: {have}") from error


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type not in _READS:
        raise LakehouseError("one statement that reads (SELECT, DESCRIBE, SHOW, EXPLAIN ...) is wanted, nothing else")


def _mentioned(names: Sequence[str], sql: str) -> list[str]:
    """Tables that the statement may read; all where it names none (SHOW TABLES). Opening a table costs a read of its
    metadata, so a name that only looks like one costs time and nothing else."""
    lowered = sql.lower()
    return [name for name in names if name.lower() in lowered] or list(names)


def _register(connection: duckdb.DuckDBPyConnection, namespace: str, name: str, table: Table) -> None:
    tasks = list(table.scan().plan_files())
    plain = all(not task.delete_files and _is_local(task.file.file_path) for task in tasks)
    by_name = plain and _names_mean_the_same(table)
    if not (tasks and by_name and _view_of_files(connection, namespace, name, table, tasks)):
        connection.register(f"{name} (arrow)", table.scan().to_arrow())
        _view(connection, namespace, name, f"SELECT * FROM {_quoted(f'{name} (arrow)')}")  # noqa: S608 - quoted
    connection.execute(f"CREATE VIEW {_quoted(name)} AS SELECT * FROM {_quoted(namespace)}.{_quoted(name)}")  # noqa: S608


def _names_mean_the_same(table: Table) -> bool:
    """Iceberg knows columns by number, a file's reader by name: after a rename or a change of type only Iceberg's own
    reader is right."""
    now = {field.field_id: field for field in table.schema().fields}
    used = {field.name for field in table.schema().fields}
    for schema in table.schemas().values():
        for field in schema.fields:
            same = now.get(field.field_id)
            renamed = same is not None and (same.name, same.field_type) != (field.name, field.field_type)
            if renamed or (same is None and field.name in used):
                return False
    return True


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
