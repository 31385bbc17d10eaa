"""What has been read of one rows topic and is not committed yet. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Batch:
    """Rows of one table with the offsets they move: `after` is where the table stands, `offsets` where it will."""

    after: dict[int, int | None] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    size_bytes: int = 0
    opened_seconds: float | None = None
    newest_message_ms: int = 0

    def add(self, partition: int, offset: int, row: dict[str, Any] | None, size_bytes: int, now: float) -> None:
        """Take a message; a rejected one (`row` None) moves the offset only."""
        self.offsets[partition] = offset + 1
        self.size_bytes += size_bytes
        if row is not None:
            self.rows.append(row)
        if self.opened_seconds is None:
            self.opened_seconds = now

    def is_due(self, now: float, *, interval_seconds: float, max_rows: int, max_bytes: int) -> bool:
        if self.opened_seconds is None:
            return False
        full = len(self.rows) >= max_rows or self.size_bytes >= max_bytes
        return full or now - self.opened_seconds >= interval_seconds

    def next_batch(self) -> Batch:
        """The empty batch that follows this one's commit."""
        return Batch(after=self.after | dict(self.offsets))

    def changed(self) -> dict[int, int | None]:
        """Where the table must stand for this batch to be appended: only partitions that move."""
        return {partition: self.after.get(partition) for partition in self.offsets}
