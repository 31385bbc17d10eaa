"""What a segment's step gives to the commit: plain records, the new state, and the next offset."""

from __future__ import annotations

from dataclasses import dataclass, field

from skyscraper.bus.headers import Headers
from skyscraper.v1 import report_pb2, state_pb2


@dataclass(frozen=True)
class Record:
    """One message to produce. `partition` None lets the key choose."""

    topic: str
    key: bytes
    value: bytes
    partition: int | None = None
    headers: Headers = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """Everything one segment changes, committed together or not at all."""

    partition: int
    next_offset: int
    """The input offset that is committed with it."""
    report: report_pb2.SegmentReport
    records: tuple[Record, ...] = ()
    """Rows, or the dead letter."""
    state: state_pb2.OperatorState | None = None
    """The stream's state after this segment; None where no stream could be told."""
