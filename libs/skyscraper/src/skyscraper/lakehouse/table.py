"""One pipeline's Iceberg table, appended to exactly once.

The Kafka offsets that a table includes are written into the snapshot that includes them, so rows and offsets change in
one atomic commit. An append is allowed only onto a table whose offsets are where the batch begins, and the commit
itself is refused by the catalog if the table moved in between (Iceberg's optimistic concurrency). So neither a restart
nor a second loader nor a zombie can lose or repeat a row.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform

from skyscraper.lakehouse.errors import LakehouseBusy, OffsetsMoved
from skyscraper.lakehouse.schema import arrow_table, iceberg_schema, iceberg_type, missing_columns, table_columns
from skyscraper.pipeline.rows import RowSchema

OFFSETS_PROPERTY = "skyscraper.offsets"

_PROPERTIES = {
    # A commit onto a table that moved must fail, not be replayed by the library: only we know whether the batch is
    # still wanted.
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
}
_COMMIT_TRIES = 8
_PARTITION_FIELD_ID = 1000


class RowTable:
    """`namespace.pipeline`, created or evolved to the pipeline's schema on opening."""

    def __init__(self, catalog: Catalog, namespace: str, pipeline: str, schema: RowSchema) -> None:
        """Raises LakehouseError where the table there cannot take this schema's rows."""
        self.columns = table_columns(schema)
        self.table = _open(catalog, f"{namespace}.{pipeline}", schema)
        for attempt in range(_COMMIT_TRIES):
            missing = missing_columns(schema, self.table.schema())
            if not missing:
                return
            try:
                with self.table.update_schema() as update:
                    for column in missing:
                        update.add_column(column.name, iceberg_type(column), doc=column.description)
            except CommitFailedException:
                # Another loader appended, or added the same columns, in the same moment.
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
                self.table.refresh()
        raise LakehouseBusy(f"{namespace}.{pipeline}: its schema cannot be changed for other writers' commits")

    def offsets(self) -> dict[int, int]:
        """By partition of the rows topic, the offset that follows the last row in the table. Reads the catalog."""
        self.table.refresh()
        return read_offsets(self.table)

    def append(
        self, rows: Sequence[Mapping[str, Any]], *, after: Mapping[int, int | None], offsets: Mapping[int, int]
    ) -> None:
        """Append `rows` and move the offsets of their partitions from `after` (None: never loaded) to `offsets`.

        Raises OffsetsMoved where the table is elsewhere by now, LakehouseBusy where others commit all the time.
        """
        data = arrow_table(rows, self.columns)
        self.commit(lambda transaction, properties: transaction.append(data, properties), after=after, offsets=offsets)

    def commit(
        self,
        change: Callable[[Any, dict[str, str]], None],
        *,
        after: Mapping[int, int | None],
        offsets: Mapping[int, int],
    ) -> None:
        """Apply `change(transaction, snapshot_properties)` as one snapshot onto the newest table, by the rule above."""
        for attempt in range(_COMMIT_TRIES):
            have = self.offsets()
            if any(have.get(partition) != start for partition, start in after.items()):
                raise OffsetsMoved(have)
            properties = offsets_property(have | dict(offsets))
            transaction = self.table.transaction()
            try:
                change(transaction, properties)
                transaction.commit_transaction()
            except CommitFailedException:
                # Another writer was first: look again. Jitter, so that two of them do not meet again and again.
                time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
            else:
                return
        raise LakehouseBusy(f"{'.'.join(self.table.name())}: {_COMMIT_TRIES} commits in a row met another writer's")


def offsets_property(offsets: Mapping[int, int]) -> dict[str, str]:
    return {OFFSETS_PROPERTY: json.dumps({str(partition): offset for partition, offset in sorted(offsets.items())})}


def read_offsets(table: Table) -> dict[int, int]:
    """From the newest snapshot that has them: one written by other tools (a manual rewrite, say) carries none."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        text = snapshot.summary.get(OFFSETS_PROPERTY) if snapshot.summary is not None else None
        if text is not None:
            return {int(partition): int(offset) for partition, offset in json.loads(text).items()}
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)
    return {}


def _open(catalog: Catalog, name: str, schema: RowSchema) -> Table:
    try:
        return catalog.load_table(name)
    except NoSuchTableError:
        columns = iceberg_schema(schema)
        time_field = columns.find_field(schema.event_time_column)
        day = PartitionField(time_field.field_id, _PARTITION_FIELD_ID, DayTransform(), f"{time_field.name}_day")
        try:
            return catalog.create_table(name, columns, partition_spec=PartitionSpec(day), properties=_PROPERTIES)
        except TableAlreadyExistsError:
            return catalog.load_table(name)
