"""Keeping a table small in files and metadata: merging small files, forgetting old snapshots, deleting what is unused.

A loader that commits every second writes a small file every second. Merging rewrites a day's small files into larger
ones in one snapshot (copy on write: no delete files, so every reader stays fast), forgetting bounds the metadata, and
deletion removes only what no remaining snapshot refers to and what is old enough that no running query reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files
from pyiceberg.table import FileScanTask, Table, Transaction

from skyscraper.lakehouse.table import RowTable

# Parquet files of this size scan well and still prune well; Iceberg's own default is 512 MiB for batch jobs.
TARGET_FILE_BYTES = 128 * 1024 * 1024
# Fewer small files than this cost a reader less than merging them costs the writer.
MINIMUM_SMALL_FILES = 24
# A rewrite holds its rows in memory, uncompressed: about ten times the files' size.
MAXIMUM_REWRITE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class SmallFile:
    path: str
    partition: str
    size_bytes: int


@dataclass(frozen=True)
class Maintenance:
    """What one round did."""

    merged_files: int
    expired_snapshots: int
    deleted_files: int
    data_files: int
    snapshots: int


def choose_merge(files: Sequence[SmallFile]) -> list[SmallFile]:
    """The files to rewrite into larger ones: of the partition with the most small files, as many as fit one rewrite.

    Empty where no partition has enough of them. A file of at least half the target size is left alone.
    """
    by_partition: dict[str, list[SmallFile]] = {}
    for file in files:
        if file.size_bytes < TARGET_FILE_BYTES // 2:
            by_partition.setdefault(file.partition, []).append(file)
    if not by_partition:
        return []
    small = max(by_partition.values(), key=len)
    if len(small) < MINIMUM_SMALL_FILES:
        return []
    chosen, total = [], 0
    # Smallest first: most files gone for the bytes rewritten.
    for file in sorted(small, key=lambda one: (one.size_bytes, one.path)):
        if total + file.size_bytes > MAXIMUM_REWRITE_BYTES:
            break
        chosen.append(file)
        total += file.size_bytes
    return chosen


def maintain(
    rows: RowTable, *, now: datetime, keep_snapshots_seconds: float, delete_after_seconds: float
) -> Maintenance:
    """One round: merge, forget, delete. Safe beside appends by this or another loader (see RowTable.commit)."""
    merged = _merge(rows)
    expired = _expire(rows.table, now - timedelta(seconds=keep_snapshots_seconds))
    deleted = _delete_unreferenced(rows.table, now - timedelta(seconds=delete_after_seconds)) if expired else 0
    rows.table.refresh()
    return Maintenance(
        merged_files=merged,
        expired_snapshots=expired,
        deleted_files=deleted,
        data_files=len(list(rows.table.scan().plan_files())),
        snapshots=len(rows.table.snapshots()),
    )


def _merge(rows: RowTable) -> int:
    merged = 0

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        nonlocal merged
        tasks = {task.file.file_path: task for task in rows.table.scan().plan_files()}
        chosen = choose_merge([_small_file(task) for task in tasks.values()])
        merged = len(chosen)
        if chosen:
            _rewrite(rows.table, transaction, [tasks[file.path] for file in chosen], properties)

    # Look before opening a transaction: most rounds have nothing to merge.
    rows.table.refresh()
    if choose_merge([_small_file(task) for task in rows.table.scan().plan_files()]):
        rows.commit(change, after={}, offsets={})
    return merged


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


def _expire(table: Table, before: datetime) -> int:
    table.refresh()
    current = table.current_snapshot()
    old = [
        snapshot.snapshot_id
        for snapshot in table.snapshots()
        if snapshot != current and snapshot.timestamp_ms < before.timestamp() * 1000
    ]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
        table.refresh()
    return len(old)


def _delete_unreferenced(table: Table, before: datetime) -> int:
    """Files under the table's folder that no snapshot refers to. Young ones may belong to a commit under way."""
    referenced = set()
    for snapshot in table.snapshots():
        referenced.add(_name(snapshot.manifest_list))
        for manifest in snapshot.manifests(table.io):
            referenced.add(_name(manifest.manifest_path))
            referenced.update(
                _name(entry.data_file.file_path)
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            )
    files, root = pafs.FileSystem.from_uri(table.location())
    deleted = 0
    for info in files.get_file_info(pafs.FileSelector(root, recursive=True)):
        # metadata.json files are pruned by the table's own properties; the catalog points at the newest.
        prunable = info.type == pafs.FileType.File and info.extension in ("parquet", "avro")
        modified = info.mtime.astimezone(UTC) if info.mtime is not None else None
        if prunable and info.base_name not in referenced and modified is not None and modified < before:
            files.delete_file(info.path)
            deleted += 1
    return deleted


def _name(path: str) -> str:
    """File names hold UUIDs, so the name alone identifies a file."""
    return path.rpartition("/")[2]
