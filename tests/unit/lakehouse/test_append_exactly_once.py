"""Rows and the offsets they came from are one commit; whoever comes late cannot commit."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse import CatalogConfig, LakehouseError, OffsetsMoved, RowTable, open_catalog
from skyscraper.lakehouse.schema import arrow_table

from .conftest import SCHEMA, make_row


def numbers(table: RowTable) -> list[int]:
    table.table.refresh()
    return sorted(table.table.scan().to_arrow().column("_row").to_pylist())


def test_offsets_and_rows_come_together(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    assert table.offsets() == {}
    table.append([make_row(0), make_row(1)], after={0: None}, offsets={0: 2})
    table.append([make_row(2)], after={3: None}, offsets={3: 9})
    assert (table.offsets(), numbers(table)) == ({0: 2, 3: 9}, [0, 1, 2])


def test_batch_without_rows_moves_offsets(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    table.append([], after={0: None}, offsets={0: 5})
    assert (table.offsets(), numbers(table)) == ({0: 5}, [])


def test_zombie_with_a_stale_table_is_refused(catalog: Catalog) -> None:
    zombie = RowTable(catalog, "rows", "c", SCHEMA)
    owner = RowTable(catalog, "rows", "c", SCHEMA)
    owner.append([make_row(0)], after={0: None}, offsets={0: 1})
    with pytest.raises(OffsetsMoved) as moved:
        zombie.append([make_row(0)], after={0: None}, offsets={0: 1})
    assert moved.value.offsets == {0: 1}
    assert numbers(owner) == [0]


def test_zombie_between_check_and_commit_is_refused(catalog: Catalog) -> None:
    """The other loader commits after the zombie has compared offsets and written its files."""
    zombie = RowTable(catalog, "rows", "c", SCHEMA)
    owner = RowTable(catalog, "rows", "c", SCHEMA)
    data = arrow_table([make_row(0)], zombie.columns)
    tries = 0

    def late(transaction, properties):  # type: ignore[no-untyped-def]
        nonlocal tries
        tries += 1
        transaction.append(data, properties)
        if tries == 1:
            owner.append([make_row(0)], after={0: None}, offsets={0: 1})

    with pytest.raises(OffsetsMoved):
        zombie.commit(late, after={0: None}, offsets={0: 1})
    assert (tries, numbers(owner)) == (1, [0])


def test_append_to_other_partitions_in_between_is_not_lost(catalog: Catalog) -> None:
    one = RowTable(catalog, "rows", "c", SCHEMA)
    other = RowTable(catalog, "rows", "c", SCHEMA)
    data = arrow_table([make_row(0)], one.columns)
    tries = 0

    def late(transaction, properties):  # type: ignore[no-untyped-def]
        nonlocal tries
        tries += 1
        transaction.append(data, properties)
        if tries == 1:
            other.append([make_row(1)], after={1: None}, offsets={1: 1})

    assert one.commit(late, after={0: None}, offsets={0: 1}) == 1
    assert (one.offsets(), numbers(one)) == ({0: 1, 1: 1}, [0, 1])


def test_many_writers_at_once_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """Three threads, each with its own catalog, append to their own partition and race for a shared one."""
    config = CatalogConfig(warehouse_path=tmp_path / "warehouse")
    RowTable(open_catalog(config), "rows", "c", SCHEMA)
    won: list[int] = []

    def write(me: int) -> None:
        table = RowTable(open_catalog(config), "rows", "c", SCHEMA)
        for step in range(4):
            start = None if step == 0 else step
            row = 100 * me + step
            while True:
                try:
                    table.append([make_row(row)], after={me: start}, offsets={me: step + 1})
                    break
                except OffsetsMoved as moved:
                    # A commit whose answer was lost has landed.
                    if moved.offsets.get(me) == step + 1:
                        break
                    raise
        try:
            table.append([make_row(999)], after={9: None}, offsets={9: 1})
            won.append(me)
        except OffsetsMoved:
            pass

    threads = [threading.Thread(target=write, args=(me,)) for me in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    table = RowTable(open_catalog(config), "rows", "c", SCHEMA)
    assert numbers(table) == sorted([100 * me + step for me in (1, 2, 3) for step in range(4)] + [999])
    assert len(won) == 1


def test_library_may_not_replay_a_stale_append(catalog: Catalog) -> None:
    """pyiceberg retries a stale append by itself unless the table says 0: also in tables that others made."""
    RowTable(catalog, "rows", "c", SCHEMA).table.transaction().set_properties(
        {"commit.retry.num-retries": "4"}
    ).commit_transaction()
    assert RowTable(catalog, "rows", "c", SCHEMA).table.properties["commit.retry.num-retries"] == "0"


def test_offsets_survive_a_snapshot_by_another_tool(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    table.append([make_row(0)], after={0: None}, offsets={0: 1})
    table.table.append(arrow_table([make_row(50)], table.columns))
    assert table.offsets() == {0: 1}


def test_table_with_rows_but_without_offsets_is_refused(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    table.table.append(arrow_table([make_row(50)], table.columns))
    with pytest.raises(LakehouseError, match=r"rename or drop the table"):
        table.offsets()
