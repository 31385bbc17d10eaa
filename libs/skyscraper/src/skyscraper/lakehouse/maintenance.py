"""Keeping a table small in files and metadata: merging small files, forgetting old snapshots, deleting what is unused.

A loader that commits every second writes a small file every second. Merging rewrites a day's small files into larger
ones in one snapshot, forgetting bounds the metadata, and deletion removes only what no remaining snapshot refers to
and what is old enough that no commit under way can want it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from skyscraper.lakehouse.expiry import delete_unreferenced, expire
from skyscraper.lakehouse.merging import merge
from skyscraper.lakehouse.table import RowTable, lakehouse_faults

# A loader maintains between two commits: rows wait for so long, and one merge more.
MERGING_SECONDS = 5.0


@dataclass(frozen=True)
class Maintenance:
    """What one round did."""

    merged_files: int
    expired_snapshots: int
    deleted_files: int
    data_files: int
    snapshots: int


def maintain(
    rows: RowTable,
    *,
    now: datetime,
    keep_snapshots_seconds: float,
    delete_after_seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Maintenance:
    """One round: merge, forget, delete. Safe beside appends by this or another loader (see RowTable.commit).

    A query may read a snapshot for `keep_snapshots_seconds` after it was replaced. A file that no snapshot refers to is
    deleted `delete_after_seconds` after it was written, which must be longer than any commit takes. Raises
    LakehouseBusy where others commit all the time; what was done until then stays done.
    """
    name = ".".join(rows.table.name())
    merged = 0
    deadline = clock() + MERGING_SECONDS
    # One merge takes one partition; backfilled video may grow many days' partitions at a time.
    with lakehouse_faults(name):
        rows.table.refresh()
        while once := merge(rows):
            merged += once
            if clock() >= deadline:
                break
        expired = expire(rows.table, now - timedelta(seconds=keep_snapshots_seconds))
        deleted = delete_unreferenced(rows.table, now - timedelta(seconds=delete_after_seconds))
        return Maintenance(
            merged_files=merged,
            expired_snapshots=expired,
            deleted_files=deleted,
            data_files=len(list(rows.table.scan().plan_files())),
            snapshots=len(rows.table.snapshots()),
        )
