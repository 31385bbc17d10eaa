"""Merging, forgetting and deleting change no row and no offset, and break no reader."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse import RowTable
from skyscraper.lakehouse.expiry import KnownSnapshot, choose_expired
from skyscraper.lakehouse.maintenance import maintain
from skyscraper.lakehouse.merging import (
    MAXIMUM_REWRITE_BYTES,
    MERGE_FILES,
    SMALL_FILE_BYTES,
    TIER_FACTOR,
    SmallFile,
    choose_merge,
)
from skyscraper.lakehouse.schema import arrow_table

from .conftest import NOON, SCHEMA, make_row

FILES = st.lists(
    st.builds(
        SmallFile,
        st.uuids().map(str),
        st.sampled_from(["day-1", "day-2"]),
        st.integers(100, 2 * SMALL_FILE_BYTES),
    ),
    max_size=120,
)


@given(FILES)
def test_merge_takes_enough_files_of_one_day_and_one_size_within_memory(files: list[SmallFile]) -> None:
    chosen = choose_merge(files)
    assert set(chosen) <= set(files)
    assert sum(file.size_bytes for file in chosen) <= MAXIMUM_REWRITE_BYTES
    assert len({file.partition for file in chosen}) <= 1
    if chosen:
        assert len(chosen) > 1
        smallest = max(4096, min(file.size_bytes for file in chosen))
        assert max(file.size_bytes for file in chosen) <= smallest * TIER_FACTOR


@given(FILES, st.randoms())
def test_merge_does_not_depend_on_order(files: list[SmallFile], rng: object) -> None:
    shuffled = list(files)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_merge(shuffled) == choose_merge(files)


@given(st.integers(1_000, 200_000))
def test_day_of_commits_ends_in_few_files_and_few_rewrites(size_bytes: int) -> None:
    """A day of commits: files stay bounded, and each byte is rewritten a bounded number of times."""
    files: list[SmallFile] = []
    written = rewritten = 0
    for number in range(3000):
        files.append(SmallFile(f"{number:06}", "day", size_bytes))
        written += size_bytes
        while chosen := choose_merge(files):
            total = sum(file.size_bytes for file in chosen)
            rewritten += total
            files = [file for file in files if file not in chosen] + [SmallFile(f"m{number:06}", "day", total)]
    large = sum(file.size_bytes >= SMALL_FILE_BYTES for file in files)
    assert len(files) - large < MERGE_FILES * 6
    assert rewritten <= 6 * written


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), unique_by=lambda pair: pair[0], max_size=30),
    st.integers(0, 10**9),
)
def test_snapshot_that_was_the_newest_at_the_limit_stays(pairs: list[tuple[int, int]], before_ms: int) -> None:
    snapshots = [KnownSnapshot(number, made_ms) for number, made_ms in pairs]
    expired = set(choose_expired(snapshots, keep=frozenset(), before_ms=before_ms))
    ordered = sorted(snapshots, key=lambda one: (one.made_ms, one.id))
    newest_then = [one for one in ordered if one.made_ms < before_ms][-1:]
    assert not expired & {one.id for one in newest_then}
    assert not expired & {one.id for one in ordered if one.made_ms >= before_ms}


def fill(table: RowTable, commits: int, at: datetime = NOON) -> None:
    for _ in range(commits):
        start = table.offsets().get(0)
        table.append([make_row(start or 0, at)], after={0: start}, offsets={0: (start or 0) + 1})


def folder(table: RowTable) -> Path:
    return Path(table.table.location().removeprefix("file://"))


def round_at(table: RowTable, seconds_from_now: float, *, keep: float = 600, delete: float = 900) -> None:
    maintain(
        table,
        now=datetime.now(UTC) + timedelta(seconds=seconds_from_now),
        keep_snapshots_seconds=keep,
        delete_after_seconds=delete,
    )


def test_merge_keeps_rows_and_offsets(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    fill(table, MERGE_FILES)
    before = table.table.scan().to_arrow().sort_by("_row")
    round_at(table, 0)
    assert len(list(table.table.scan().plan_files())) == 1
    assert table.table.scan().to_arrow().sort_by("_row") == before
    assert table.offsets() == {0: MERGE_FILES}


def test_every_day_with_small_files_is_merged_in_one_round(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    for day in range(2):
        fill(table, MERGE_FILES, NOON + timedelta(days=day))
    round_at(table, 0)
    assert len(list(table.table.scan().plan_files())) == 2


def test_append_during_a_merge_is_kept(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another loader commits between the merge's plan and its commit: the merge plans again."""
    from skyscraper.lakehouse import merging

    table, other = RowTable(catalog, "rows", "c", SCHEMA), RowTable(catalog, "rows", "c", SCHEMA)
    fill(table, MERGE_FILES)
    rewrite, calls = merging._rewrite, []

    def slow(*arguments):  # type: ignore[no-untyped-def]
        rewrite(*arguments)
        calls.append(1)
        if len(calls) == 1:
            fill(other, 1)

    monkeypatch.setattr(merging, "_rewrite", slow)
    round_at(table, 0)
    table.table.refresh()
    assert sorted(table.table.scan().to_arrow().column("_row").to_pylist()) == list(range(MERGE_FILES + 1))
    assert (len(calls), table.offsets()) == (2, {0: MERGE_FILES + 1})


def test_files_and_metadata_are_bounded(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    counts = []
    for _ in range(3):
        fill(table, 2 * MERGE_FILES)
        round_at(table, 10_000)
        counts.append(sum(1 for path in folder(table).rglob("*") if path.is_file()))
    assert max(counts[1:]) <= counts[0] + MERGE_FILES
    assert len(table.table.snapshots()) == 1
    assert table.table.scan().to_arrow().num_rows == 6 * MERGE_FILES


def test_query_that_began_before_the_merge_goes_on(catalog: Catalog) -> None:
    """The table stood still for a day; then a query begins, and a merge replaces the day-old snapshot under it."""
    table = RowTable(catalog, "rows", "c", SCHEMA)
    fill(table, MERGE_FILES)
    reader = catalog.load_table("rows.c").scan()
    planned = list(reader.plan_files())
    round_at(table, 0)
    round_at(table, 590)
    assert all(Path(task.file.file_path.removeprefix("file://")).exists() for task in planned)
    assert reader.to_arrow().num_rows == MERGE_FILES
    round_at(table, 1000)
    assert not any(Path(task.file.file_path.removeprefix("file://")).exists() for task in planned)


def test_young_file_of_a_commit_under_way_stays(catalog: Catalog) -> None:
    table = RowTable(catalog, "rows", "c", SCHEMA)
    fill(table, 1)
    under_way = folder(table) / "data" / "under-way.parquet"
    under_way.write_bytes(b"")
    round_at(table, 800)
    assert under_way.exists()
    round_at(table, 1000)
    assert not under_way.exists()


def test_snapshot_with_the_offsets_is_never_forgotten(catalog: Catalog) -> None:
    """Another tool's snapshots carry no offsets; forgetting ours would load every row again."""
    table = RowTable(catalog, "rows", "c", SCHEMA)
    fill(table, 2)
    for number in (50, 51):
        table.table.append(arrow_table([make_row(number)], table.columns))
    round_at(table, 10_000)
    assert table.offsets() == {0: 2}
    fill(table, 1)
    round_at(table, 10_000)
    assert len(table.table.snapshots()) == 1
