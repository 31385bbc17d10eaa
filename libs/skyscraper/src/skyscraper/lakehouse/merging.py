"""Rewriting small files into larger ones (copy on write: no delete files, so every reader stays fast)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.table import FileScanTask, Table, Transaction

from skyscraper.lakehouse.table import RowTable

# A rewrite holds its rows in memory, uncompressed: about ten times the files' size.
MAXIMUM_REWRITE_BYTES = 64 * 1024 * 1024
# A file of half a rewrite has nothing to gain: two of them do not fit one.
SMALL_FILE_BYTES = MAXIMUM_REWRITE_BYTES // 2
# Files are merged with files of about their own size only, so that a row is rewritten once per tier, not once per
# round: from 4 KiB to 32 MiB that is at most five times. A factor of 8 keeps a day below tiers * MERGE_FILES files.
TIER_FACTOR = 8
SMALLEST_TIER_BYTES = 4 * 1024
# Fewer cost a reader less (about a millisecond each) than merging them costs the writer.
MERGE_FILES = 16


@dataclass(frozen=True)
class SmallFile:
    path: str
    partition: str
    size_bytes: int


def choose_merge(files: Sequence[SmallFile]) -> list[SmallFile]:
    """The files to rewrite into one: the most numerous files of one partition and one tier of sizes, as many as fit one
    rewrite. Empty where nowhere are enough of them. Pure, and the same for any order of `files`."""
    groups: dict[tuple[str, int], list[SmallFile]] = {}
    for file in files:
        if file.size_bytes < SMALL_FILE_BYTES:
            groups.setdefault((file.partition, _tier(file.size_bytes)), []).append(file)
    if not groups:
        return []
    where = max(groups, key=lambda group: (len(groups[group]), group))
    if len(groups[where]) < MERGE_FILES:
        return []
    chosen, total = [], 0
    for file in sorted(groups[where], key=lambda one: (one.size_bytes, one.path)):
        if total + file.size_bytes > MAXIMUM_REWRITE_BYTES:
            break
        chosen.append(file)
        total += file.size_bytes
    return chosen


def merge(rows: RowTable) -> int:
    """Merge once, in one snapshot; returns how many files went into it. Raises LakehouseBusy."""
    merged = 0

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        nonlocal merged
        tasks = {task.file.file_path: task for task in rows.table.scan().plan_files()}
        chosen = choose_merge([_small_file(task) for task in tasks.values()])
        merged = len(chosen)
        if chosen:
            _rewrite(rows.table, transaction, [tasks[file.path] for file in chosen], properties)

    # Look before opening a transaction: most rounds have nothing to merge.
    if choose_merge([_small_file(task) for task in rows.table.scan().plan_files()]):
        rows.commit(change, after={}, offsets={})
    return merged


def _tier(size_bytes: int) -> int:
    tier = 0
    while size_bytes > SMALLEST_TIER_BYTES * TIER_FACTOR**tier:
        tier += 1
    return tier


def _rewrite(table: Table, transaction: Transaction, tasks: Sequence[FileScanTask], properties: dict[str, str]) -> None:
    data = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
    with transaction.update_snapshot(snapshot_properties=properties).overwrite() as overwrite:
        for task in tasks:
            overwrite.delete_data_file(task.file)
        # The library's own append goes through this function; it offers no public rewrite of chosen files yet.
        for file in _dataframe_to_data_files(table.metadata, data, table.io, overwrite.commit_uuid):
            overwrite.append_data_file(file)


def _small_file(task: FileScanTask) -> SmallFile:
    return SmallFile(task.file.file_path, repr(task.file.partition), task.file.file_size_in_bytes)
