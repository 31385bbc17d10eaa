"""One table's loading: parse rows, batch them, append them exactly once."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import structlog
from confluent_kafka import Message
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse.errors import BadRow, OffsetsMoved
from skyscraper.lakehouse.maintenance import maintain
from skyscraper.lakehouse.schema import parse_row
from skyscraper.lakehouse.table import RowTable
from skyscraper.pipeline.rows import RowSchema

from skyscraper_loader import metrics
from skyscraper_loader.batch import Batch
from skyscraper_loader.config import LoaderConfig, MaintenanceConfig
from skyscraper_loader.rejects import Rejects

log = structlog.get_logger()


class Loading:
    """The rows topic of one pipeline on its way into one table. Called by one thread."""

    def __init__(
        self, config: LoaderConfig, catalog: Catalog, pipeline: str, schema: RowSchema, rejects: Rejects
    ) -> None:
        """Raises LakehouseError where the table cannot take the schema's rows."""
        self._config = config
        self._pipeline = pipeline
        self._table = RowTable(catalog, config.catalog.namespace, pipeline, schema)
        self._rejects = rejects
        self._batch = Batch()

    def assign(self, partitions: list[int]) -> dict[int, int | None]:
        """Begin with these partitions; returns where in each to read on (None: nothing is loaded yet)."""
        offsets = self._table.offsets()
        starts = {partition: offsets.get(partition) for partition in partitions}
        self._batch.after |= starts
        return starts

    def drop(self, partitions: list[int]) -> None:
        """Forget what is held: other loaders own these partitions. Rows of several partitions share a batch, so all
        of it goes, and the partitions that stay must be read again from `assign`."""
        self._batch = Batch(after={p: o for p, o in self._batch.after.items() if p not in partitions})

    @property
    def holds_rows(self) -> bool:
        return bool(self._batch.offsets)

    def add(self, message: Message) -> None:
        value, partition, offset = message.value(), message.partition() or 0, message.offset() or 0
        row = None
        try:
            row, unknown = parse_row(value, self._table.columns)
        except BadRow as error:
            self._rejects.add(message, error)
        else:
            if unknown:
                metrics.UNKNOWN_COLUMNS.labels(self._pipeline).inc(len(unknown))
        self._batch.add(partition, offset, row, len(value or b""), time.monotonic())
        self._batch.newest_message_ms = max(self._batch.newest_message_ms, message.timestamp()[1])

    def is_due(self) -> bool:
        config = self._config
        return self._batch.is_due(
            time.monotonic(),
            interval_seconds=config.commit_interval_seconds,
            max_rows=config.max_rows,
            max_bytes=config.max_bytes,
        )

    def commit(self) -> None:
        """Append what is held. Raises OffsetsMoved (another loader was here: read on from the table) and LakehouseBusy;
        what is held then stays, or is dropped by `drop`."""
        if not self._batch.offsets:
            return
        # Rejected messages must be safe before the offset moves past them.
        self._rejects.flush()
        started = time.monotonic()
        try:
            self._table.append(self._batch.rows, after=self._batch.changed(), offsets=self._batch.offsets)
        except OffsetsMoved:
            metrics.COMMITS.labels(self._pipeline, "offsets_moved").inc()
            raise
        metrics.COMMITS.labels(self._pipeline, "committed").inc()
        metrics.COMMIT_SECONDS.labels(self._pipeline).observe(time.monotonic() - started)
        metrics.ROWS.labels(self._pipeline).inc(len(self._batch.rows))
        metrics.LAG_SECONDS.labels(self._pipeline).set(max(0.0, time.time() - self._batch.newest_message_ms / 1000))
        self._batch = self._batch.next_batch()

    def maintain(self, settings: MaintenanceConfig) -> None:
        done = maintain(
            self._table,
            now=datetime.now(UTC),
            keep_snapshots_seconds=settings.keep_snapshots_seconds,
            delete_after_seconds=settings.delete_after_seconds,
        )
        metrics.DATA_FILES.labels(self._pipeline).set(done.data_files)
        metrics.SNAPSHOTS.labels(self._pipeline).set(done.snapshots)
        metrics.MERGED.labels(self._pipeline).inc(done.merged_files)
        if done.merged_files or done.deleted_files:
            log.info("table_maintained", pipeline=self._pipeline, merged=done.merged_files, deleted=done.deleted_files)
