"""SQL sees the tables as they are, and cannot change anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse import CatalogConfig, LakehouseError, RowTable, open_catalog
from skyscraper.lakehouse.errors import LakehouseBusy
from skyscraper.lakehouse.query import run_query
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

from .conftest import SCHEMA, make_row


@pytest.fixture
def table(catalog: Catalog) -> RowTable:
    table = RowTable(catalog, "rows", "counting", SCHEMA)
    for number in range(3):
        table.append([make_row(number)], after={0: number or None}, offsets={0: number + 1})
    return table


@pytest.mark.parametrize("name", ["counting", "rows.counting", "COUNTING"])
@pytest.mark.usefixtures("table")
def test_table_by_its_names(catalog: Catalog, name: str) -> None:
    assert run_query(catalog, "rows", f"SELECT sum(people) AS people FROM {name}").to_pylist() == [{"people": 3}]  # noqa: S608


@pytest.mark.usefixtures("table")
def test_times_are_utc(catalog: Catalog) -> None:
    answer = run_query(catalog, "rows", 'SELECT DISTINCT "at"::VARCHAR AS time FROM counting')
    assert answer.to_pylist() == [{"time": "2026-01-01 12:00:00+00"}]


def test_column_added_later_is_there(catalog: Catalog, table: RowTable) -> None:
    dogs = Column("dogs", ColumnType.INT64, "", nullable=True)
    table.adopt(RowSchema((*SCHEMA.columns, dogs), "at"))
    sql = "SELECT _row, dogs FROM counting ORDER BY _row"
    assert {row["dogs"] for row in run_query(catalog, "rows", sql).to_pylist()} == {None}
    table.append([make_row(3, dogs=1)], after={0: 3}, offsets={0: 4})
    assert [row["dogs"] for row in run_query(catalog, "rows", sql).to_pylist()] == [None, None, None, 1]


def test_renamed_column_keeps_its_values(catalog: Catalog, table: RowTable) -> None:
    with table.table.update_schema() as update:
        update.rename_column("people", "persons")
    assert run_query(catalog, "rows", "SELECT sum(persons) AS n FROM counting").to_pylist() == [{"n": 3}]


def test_deleted_rows_are_gone(catalog: Catalog, table: RowTable) -> None:
    table.table.delete("_row = 1")
    assert run_query(catalog, "rows", "SELECT _row FROM counting ORDER BY 1").to_pylist() == [{"_row": 0}, {"_row": 2}]


def test_empty_table(catalog: Catalog) -> None:
    RowTable(catalog, "rows", "fresh", SCHEMA)
    assert run_query(catalog, "rows", "SELECT count(*) AS n FROM fresh").to_pylist() == [{"n": 0}]


@pytest.mark.usefixtures("table")
def test_tables_are_listed(catalog: Catalog) -> None:
    assert "counting" in str(run_query(catalog, "rows", "SHOW TABLES").to_pylist())


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("sql", ["SELECT * FROM cuonting", "SELEKT 1", "SELECT nothing FROM counting"])
def test_mistake_is_told_with_the_tables_there_are(catalog: Catalog, sql: str) -> None:
    with pytest.raises(LakehouseError, match=r"Tables: counting"):
        run_query(catalog, "rows", sql)


@pytest.mark.usefixtures("table")
def test_statement_that_writes_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    for sql in (f"COPY counting TO '{tmp_path}/out.csv'", "DROP VIEW counting", "SELECT 1; SELECT 2", ""):
        with pytest.raises(LakehouseError, match="one statement that reads"):
            run_query(catalog, "rows", sql)
    assert not (tmp_path / "out.csv").exists()


def test_password_of_a_catalog_is_not_told() -> None:
    config = CatalogConfig(
        warehouse_path=None,
        properties={"type": "sql", "uri": "nodb://user:hunter2@127.0.0.1:1/x", "warehouse": "file:///nowhere"},
    )
    with pytest.raises(LakehouseBusy) as fault:
        open_catalog(config)
    assert "hunter2" not in str(fault.value)
    assert fault.value.__cause__ is None
    assert "hunter2" not in repr(config)
