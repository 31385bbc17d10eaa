"""One table's loading: parse rows, batch them, append them exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
from confluent_kafka import Message
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse.errors import BadRow, LakehouseBusy, OffsetsMoved
from skyscraper.lakehouse.maintenance import maintain
from skyscraper.lakehouse.schema import parse_row
from skyscraper.lakehouse.table import RowTable
from skyscraper.pipeline.rows import RowSchema

from skyscraper_loader import metrics
from skyscraper_loader.batch import Batch
from skyscraper_loader.config import LoaderConfig, MaintenanceConfig
from skyscraper_loader.rejects import Rejects

log = structlog.get_logger()

# Offsets without rows are worth a snapshot only to outlive retention, which takes hours.
_IDLE_COMMIT_SECONDS = 60.0
# A storage that fails is asked again soon, but not ten times a second.
_RETRY_SECONDS = 2.0
# Names of unknown columns remembered, so that each is asked about once.
_MAX_UNKNOWN_NAMES = 1000


class Loading:
    """The rows topic of one pipeline on its way into one table. Called by one thread."""

    def __init__(
        self, config: LoaderConfig, catalog: Catalog, pipeline: str, schema: RowSchema, rejects: Rejects
    ) -> None:
        """Raises LakehouseError where the table cannot take the schema's rows."""
        self._config = config
        self.pipeline = pipeline
        self._table = RowTable(catalog, config.catalog.namespace, pipeline, schema)
        self._rejects = rejects
        self._batch = Batch()
        self._unknown: set[str] = set()
        self._not_before = 0.0

    def adopt(self, schema: RowSchema) -> None:
        """Take a newer schema; what is held stays. Raises LakehouseError where the table cannot."""
        self._table.adopt(schema)
        self._unknown.clear()

    def assign(self, partitions: list[int]) -> dict[int, int | None]:
        """Begin with these partitions; returns where in each to read on (None: nothing is loaded yet)."""
        offsets = self._table.offsets()
        starts = {partition: offsets.get(partition) for partition in partitions}
        self._batch.after |= starts
        return starts

    def drop(self, partitions: list[int]) -> None:
        """Forget what is held: other loaders own these partitions. Rows of several partitions share a batch, so all
        of it goes, and the partitions that stay must be read again from `assign`."""
        self._batch = self._batch.without(partitions)

    def add(self, message: Message, look_for_newer_schema: Callable[[], bool]) -> bool:
        """Take a message. Where it has columns never seen before, `look_for_newer_schema` may `adopt` one first; it
        returns False where rows of this pipeline have to wait. The message is then not taken, and False returned."""
        value, partition, offset = message.value(), message.partition() or 0, message.offset() or 0
        row = None
        try:
            row, unknown = parse_row(value, self._table.columns)
            if unknown - self._unknown and len(self._unknown) < _MAX_UNKNOWN_NAMES:
                if not look_for_newer_schema():
                    return False
                row, unknown = parse_row(value, self._table.columns)
                self._unknown |= unknown
            if unknown:
                metrics.UNKNOWN_COLUMNS.labels(self.pipeline).inc(len(unknown))
        except BadRow as error:
            self._rejects.add(message, error)
        self._batch.add(partition, offset, row, len(value or b""), time.monotonic())
        self._batch.newest_message_ms = max(self._batch.newest_message_ms, message.timestamp()[1])
        return True

    def reach(self, partition: int, offset: int) -> None:
        """The log was read to its end at `offset`."""
        self._batch.reach(partition, offset, time.monotonic())

    def is_full(self) -> bool:
        return self._batch.is_full(max_messages=self._config.max_rows, max_bytes=self._config.max_bytes)

    def is_due(self) -> bool:
        now = time.monotonic()
        return now >= self._not_before and (
            self.is_full()
            or self._batch.is_due(
                now, interval_seconds=self._config.commit_interval_seconds, idle_seconds=_IDLE_COMMIT_SECONDS
            )
        )

    def commit(self) -> None:
        """Append what is held. Raises OffsetsMoved (another loader was here: read on from the table), LakehouseBusy
        and BusTimeout; what is held then stays, until `drop`."""
        if not self._batch.offsets:
            return
        started = time.monotonic()
        outcome = "failed"
        try:
            # Rejected messages must be safe before the offset moves past them.
            self._rejects.flush()
            conflicts = self._table.append(self._batch.rows, after=self._batch.changed(), offsets=self._batch.offsets)
            outcome = "committed"
        except OffsetsMoved:
            outcome = "offsets_moved"
            raise
        except LakehouseBusy:
            outcome = "busy"
            raise
        finally:
            metrics.COMMITS.labels(self.pipeline, outcome).inc()
            if outcome != "committed":
                self._not_before = time.monotonic() + _RETRY_SECONDS
        metrics.CONFLICTS.labels(self.pipeline).inc(conflicts)
        metrics.COMMIT_SECONDS.labels(self.pipeline).observe(time.monotonic() - started)
        metrics.ROWS.labels(self.pipeline).inc(len(self._batch.rows))
        metrics.BYTES.labels(self.pipeline).inc(self._batch.size_bytes)
        if self._batch.messages:
            metrics.LAG_SECONDS.labels(self.pipeline).set(max(0.0, time.time() - self._batch.newest_message_ms / 1000))
        self._batch = self._batch.next_batch()

    def maintain(self, settings: MaintenanceConfig) -> None:
        """Raises LakehouseBusy."""
        done = maintain(
            self._table,
            now=datetime.now(UTC),
            keep_snapshots_seconds=settings.keep_snapshots_seconds,
            delete_after_seconds=settings.delete_after_seconds,
        )
        metrics.DATA_FILES.labels(self.pipeline).set(done.data_files)
        metrics.SNAPSHOTS.labels(self.pipeline).set(done.snapshots)
        metrics.MERGED.labels(self.pipeline).inc(done.merged_files)
        if done.merged_files or done.deleted_files:
            log.info("table_maintained", pipeline=self.pipeline, merged=done.merged_files, deleted=done.deleted_files)
