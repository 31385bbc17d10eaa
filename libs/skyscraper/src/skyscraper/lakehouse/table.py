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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError, ValidationException
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import DayTransform

from skyscraper.errors import SkyscraperError
from skyscraper.lakehouse.errors import LakehouseBusy, LakehouseError, OffsetsMoved
from skyscraper.lakehouse.schema import arrow_table, evolution, iceberg_schema, iceberg_type, table_columns
from skyscraper.pipeline.rows import RowSchema

OFFSETS_PROPERTY = "skyscraper.offsets"

_RETRIES = "commit.retry.num-retries"
_PROPERTIES = {
    # A commit onto a table that moved must fail, not be replayed by the library: only we know whether the batch is
    # still wanted.
    _RETRIES: "0",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
}
_COMMIT_TRIES = 8
# Both mean that nothing was committed.
_CONFLICTS = (CommitFailedException, ValidationException)
_PARTITION_FIELD_ID = 1000


class RowTable:
    """`namespace.pipeline`, created or evolved to the pipeline's schema on opening."""

    def __init__(self, catalog: Catalog, namespace: str, pipeline: str, schema: RowSchema) -> None:
        """Raises LakehouseError where the table there cannot take this schema's rows."""
        self.columns = table_columns(schema)
        self._name = f"{namespace}.{pipeline}"
        with lakehouse_faults(self._name):
            self.table = _open(catalog, self._name, schema)
            if self.table.properties.get(_RETRIES) != "0":
                # Made by somebody else, or by another version of ours.
                self.table.transaction().set_properties({_RETRIES: "0"}).commit_transaction()
        self.adopt(schema)

    def adopt(self, schema: RowSchema) -> None:
        """Evolve the table to a newer schema. Raises LakehouseError where that cannot be; nothing is changed then."""
        for attempt in range(_COMMIT_TRIES):
            with lakehouse_faults(self._name):
                self.table.refresh()
                change = evolution(schema, self.table.schema())
                if not change.add and not change.relax:
                    self.columns = table_columns(schema)
                    return
                try:
                    with self.table.update_schema() as update:
                        for column in change.add:
                            update.add_column(column.name, iceberg_type(column), doc=column.description)
                        for name in change.relax:
                            update.make_column_optional(name)
                except CommitFailedException:
                    # Another loader appended, or made the same change, in the same moment.
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
        raise LakehouseBusy(f"{self._name}: its schema cannot be changed for other writers' commits")

    def offsets(self) -> dict[int, int]:
        """By partition of the rows topic, the offset that follows the last row in the table. Reads the catalog.

        Raises LakehouseError where the table has rows but no offsets.
        """
        with lakehouse_faults(self._name):
            self.table.refresh()
            return read_offsets(self.table)

    def append(
        self, rows: Sequence[Mapping[str, Any]], *, after: Mapping[int, int | None], offsets: Mapping[int, int]
    ) -> int:
        """Append `rows` and move the offsets of their partitions from `after` (None: never loaded) to `offsets`.

        Returns how often another writer was first. Raises OffsetsMoved where the table is elsewhere by now,
        LakehouseBusy where others commit all the time or the storage fails: the outcome may then be unknown, and the
        next call finds out from the table's offsets.
        """
        data = arrow_table(rows, self.columns)
        return self.commit(
            lambda transaction, properties: transaction.append(data, properties), after=after, offsets=offsets
        )

    def commit(
        self,
        change: Callable[[Any, dict[str, str]], None],
        *,
        after: Mapping[int, int | None],
        offsets: Mapping[int, int],
    ) -> int:
        """Apply `change(transaction, snapshot_properties)` as one snapshot onto the newest table, by the rule above.
        Returns and raises what `append` does."""
        for attempt in range(_COMMIT_TRIES):
            have = self.offsets()
            if any(have.get(partition) != start for partition, start in after.items()):
                raise OffsetsMoved(have)
            properties = offsets_property(have | dict(offsets))
            with lakehouse_faults(self._name):
                transaction = self.table.transaction()
                try:
                    change(transaction, properties)
                    transaction.commit_transaction()
                except _CONFLICTS:
                    # Another writer was first: look again. Jitter, so that two do not meet again and again.
                    time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311
                else:
                    return attempt
        raise LakehouseBusy(f"{self._name}: {_COMMIT_TRIES} commits in a row met another writer's")


@contextmanager
def lakehouse_faults(table: str) -> Iterator[None]:
    """Every catalog and file system raises its own library's errors (SQLAlchemy, HTTP, cloud SDKs): to us they are one
    thing, storage that does not take or give data now."""
    try:
        yield
    except SkyscraperError:
        raise
    except Exception as error:
        raise LakehouseBusy(f"{table}: {type(error).__name__}: {error}") from error


def offsets_property(offsets: Mapping[int, int]) -> dict[str, str]:
    return {OFFSETS_PROPERTY: json.dumps({str(partition): offset for partition, offset in sorted(offsets.items())})}


def read_offsets(table: Table) -> dict[int, int]:
    """From the newest snapshot that has them: one written by other tools (a manual rewrite, say) carries none.

    Raises LakehouseError where there are snapshots but no offsets: to begin at the topic's beginning would repeat rows.
    """
    lineage = offsets_lineage(table)
    if not lineage:
        return {}
    text = _offsets_text(lineage[-1])
    if text is None:
        raise LakehouseError(
            f"table {'.'.join(table.name())} has snapshots, but none of them says which Kafka offsets it includes "
            f"({OFFSETS_PROPERTY}); it was not written by a loader, or another tool expired the loader's "
            "snapshots: rename or drop the table, or append an empty snapshot with that property"
        )
    return {int(partition): int(offset) for partition, offset in json.loads(text).items()}


def offsets_lineage(table: Table) -> list[Snapshot]:
    """The current snapshot and its ancestors, up to the newest one that carries offsets; empty for a new table."""
    lineage: list[Snapshot] = []
    snapshot = table.current_snapshot()
    while snapshot is not None:
        lineage.append(snapshot)
        if _offsets_text(snapshot) is not None or snapshot.parent_snapshot_id is None:
            break
        snapshot = table.snapshot_by_id(snapshot.parent_snapshot_id)
    return lineage


def _offsets_text(snapshot: Snapshot) -> str | None:
    return None if snapshot.summary is None else snapshot.summary.get(OFFSETS_PROPERTY)


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
