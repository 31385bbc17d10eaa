"""A newer profile may add nullable columns, relax and drop columns; anything else is refused in words."""

from __future__ import annotations

import pytest
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse import LakehouseError, RowTable
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

from .conftest import NOON, SCHEMA, make_row

AT, PEOPLE = SCHEMA.columns
DOGS = Column("dogs", ColumnType.INT64, "How many dogs.", nullable=True)


def evolved(catalog: Catalog, *columns: Column) -> RowTable:
    RowTable(catalog, "rows", "c", SCHEMA).append([make_row(0)], after={0: None}, offsets={0: 1})
    return RowTable(catalog, "rows", "c", RowSchema((AT, *columns), "at"))


def test_nullable_column_is_added_and_old_rows_have_none(catalog: Catalog) -> None:
    table = evolved(catalog, PEOPLE, DOGS)
    table.append([make_row(1, dogs=2)], after={0: 1}, offsets={0: 2})
    assert table.table.scan().to_arrow().sort_by("_row").column("dogs").to_pylist() == [None, 2]


def test_rows_read_before_the_column_came_are_appended_after(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    table.adopt(RowSchema((AT, PEOPLE, DOGS), "at"))
    table.append([make_row(0)], after={0: None}, offsets={0: 1})
    assert table.table.scan().to_arrow().column("dogs").to_pylist() == [None]


def test_column_may_become_nullable(catalog: Catalog) -> None:
    table = evolved(catalog, Column("people", ColumnType.INT64, "", nullable=True))
    table.append([make_row(1) | {"people": None}], after={0: 1}, offsets={0: 2})
    assert table.table.scan().to_arrow().sort_by("_row").column("people").to_pylist() == [0, None]


def test_dropped_column_stays_for_old_rows(catalog: Catalog) -> None:
    table = evolved(catalog)
    new = {"_stream": "gate-1", "_segment": "s", "_row": 1, "at": NOON}
    table.append([new], after={0: 1}, offsets={0: 2})
    assert table.table.scan().to_arrow().sort_by("_row").column("people").to_pylist() == [0, None]


def test_loader_of_an_older_profile_goes_on(catalog: Catalog) -> None:
    """A rolling upgrade: the old loader still runs when the new one has added a column."""
    old = RowTable(catalog, "rows", "c", SCHEMA)
    evolved(catalog, PEOPLE, DOGS)
    old.append([make_row(1)], after={0: 1}, offsets={0: 2})
    assert old.offsets() == {0: 2}


def test_new_column_without_values_for_old_rows_is_refused(catalog: Catalog) -> None:
    with pytest.raises(LakehouseError, match="make it nullable"):
        evolved(catalog, PEOPLE, Column("dogs", ColumnType.INT64, ""))


def test_changed_type_is_refused(catalog: Catalog) -> None:
    with pytest.raises(LakehouseError, match="column people is long in the table and STRING in the pipeline"):
        evolved(catalog, Column("people", ColumnType.STRING, ""))
