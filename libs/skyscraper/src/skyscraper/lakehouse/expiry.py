"""Forgetting old snapshots, and deleting files that no snapshot refers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.fs as pafs
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from skyscraper.lakehouse.table import offsets_lineage


@dataclass(frozen=True)
class KnownSnapshot:
    id: int
    made_ms: int
    """Wall clock of its commit, milliseconds since 1970."""


def choose_expired(snapshots: Sequence[KnownSnapshot], *, keep: frozenset[int], before_ms: int) -> list[int]:
    """The ids of snapshots that were already replaced by a newer one at `before_ms`, without those in `keep`. Pure.

    What counts is when a snapshot stopped being the newest, not when it was made: a table may stand still for a day,
    and a query that began a second before the next commit still reads the day-old snapshot.
    """
    ordered = sorted(snapshots, key=lambda snapshot: (snapshot.made_ms, snapshot.id))
    return [
        snapshot.id
        for snapshot, successor in zip(ordered, ordered[1:], strict=False)
        if successor.made_ms < before_ms and snapshot.id not in keep
    ]


def expire(table: Table, before: datetime) -> int:
    """Forget snapshots replaced before `before`; returns how many. The newest stays, and the way back to offsets."""
    table.refresh()
    lineage = frozenset(snapshot.snapshot_id for snapshot in offsets_lineage(table))
    # Heads of branches and tags: somebody named them to keep them.
    named = frozenset(ref.snapshot_id for ref in table.metadata.refs.values())
    expired = choose_expired(
        [KnownSnapshot(snapshot.snapshot_id, snapshot.timestamp_ms) for snapshot in table.snapshots()],
        keep=lineage | named,
        before_ms=int(before.timestamp() * 1000),
    )
    if expired:
        table.maintenance.expire_snapshots().by_ids(expired).commit()
        table.refresh()
    return len(expired)


def delete_unreferenced(table: Table, before: datetime) -> int:
    """Delete files under the table's folder that no snapshot refers to and that are older than `before`; returns how
    many. Younger ones may belong to a commit under way."""
    table.refresh()
    referenced = _referenced(table)
    files, root = pafs.FileSystem.from_uri(table.location())
    deleted = 0
    for info in files.get_file_info(pafs.FileSelector(root, recursive=True)):
        ours = info.type == pafs.FileType.File and info.extension in ("parquet", "avro", "json")
        modified = info.mtime.astimezone(UTC) if info.mtime is not None else None
        if ours and info.base_name not in referenced and modified is not None and modified < before:
            files.delete_file(info.path)
            deleted += 1
    return deleted


def _referenced(table: Table) -> set[str]:
    # File names hold UUIDs, so the name alone identifies a file, whatever scheme its path is written with.
    names = {_name(table.metadata_location), *(_name(entry.metadata_file) for entry in table.metadata.metadata_log)}
    names |= {_name(file.statistics_path) for file in table.metadata.statistics}
    manifests: dict[str, ManifestFile] = {}
    for snapshot in table.snapshots():
        names.add(_name(snapshot.manifest_list))
        # Neighbouring snapshots share nearly all manifests: each is read once.
        manifests |= {manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)}
    for path, manifest in manifests.items():
        names.add(_name(path))
        names |= {_name(e.data_file.file_path) for e in manifest.fetch_manifest_entry(table.io, discard_deleted=True)}
    return names


def _name(path: str) -> str:
    return path.rpartition("/")[2]
