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
    messages: int = 0
    size_bytes: int = 0
    opened_seconds: float | None = None
    """When the first message came."""
    reached_seconds: float | None = None
    """When the first offset without a message was passed."""
    newest_message_ms: int = 0

    def add(self, partition: int, offset: int, row: dict[str, Any] | None, size_bytes: int, now: float) -> None:
        """Take a message; a rejected one (`row` None) moves the offset only."""
        self.offsets[partition] = offset + 1
        self.messages += 1
        self.size_bytes += size_bytes
        if row is not None:
            self.rows.append(row)
        if self.opened_seconds is None:
            self.opened_seconds = now

    def reach(self, partition: int, offset: int, now: float) -> None:
        """The log was read up to `offset`. What lies before it and was no message (transaction markers, aborted rows)
        is done with, so that its deletion by retention will not look like a loss."""
        if offset <= (self.offsets.get(partition) or self.after.get(partition) or 0):
            return
        self.offsets[partition] = offset
        if self.reached_seconds is None:
            self.reached_seconds = now

    def is_full(self, *, max_messages: int, max_bytes: int) -> bool:
        return self.messages >= max_messages or self.size_bytes >= max_bytes

    def is_due(self, now: float, *, interval_seconds: float, idle_seconds: float) -> bool:
        """Messages wait for `interval_seconds`, offsets without messages for `idle_seconds`."""
        waited = self.opened_seconds is not None and now - self.opened_seconds >= interval_seconds
        idled = self.reached_seconds is not None and now - self.reached_seconds >= idle_seconds
        return waited or idled

    def next_batch(self) -> Batch:
        """The empty batch that follows this one's commit."""
        return Batch(after=self.after | dict(self.offsets))

    def without(self, partitions: list[int]) -> Batch:
        """The empty batch where other loaders own `partitions` from now on."""
        return Batch(after={p: offset for p, offset in self.after.items() if p not in partitions})

    def changed(self) -> dict[int, int | None]:
        """Where the table must stand for this batch to be appended: only partitions that move."""
        return {partition: self.after.get(partition) for partition in self.offsets}
