"""The topics, how they are kept, and the words in their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# The design's bound; 63 characters also fit a DNS label and a Kubernetes name.
STREAM_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
# One segment is at most one Kafka message; Kafka itself refuses more than the topic's max.message.bytes.
MAX_SEGMENT_BYTES = 8 * 1024 * 1024
# Room for the record's key, headers and batch framing on top of the segment itself.
MAX_MESSAGE_BYTES = MAX_SEGMENT_BYTES + 64 * 1024

STREAMS = "sky.streams"
SEGMENTS = "sky.segments"
REPORTS = "sky.reports"
PLANS = "sky.plans"
# The key of the plan that all streams share; no stream id begins so.
POOL_KEY = b"_pool"
PROFILES = "sky.profiles"
STATE = "sky.state"
LEDGER = "sky.ledger"
# The key of the gateway that leads; no tenant's name begins so.
LEADER_KEY = b"_leader"
DEAD_LETTERS = "sky.dead-letters"

# As long as rows and reports are kept, so that a bill can be compared with them.
_LEDGER_HISTORY_MS = 7 * 86_400 * 1000


def is_stream_id(text: str) -> bool:
    return STREAM_ID.fullmatch(text) is not None


def rows_topic(pipeline: str) -> str:
    return f"sky.rows.{pipeline}"


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it is created: broker settings under Kafka's own names."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topic_specs(
    *,
    partitions: int,
    pipelines: Iterable[str],
    retention_seconds: float,
    retention_bytes_per_partition: int,
) -> list[TopicSpec]:
    """All topics of an installation.

    `sky.segments`, `sky.state`, `sky.reports` and `sky.dead-letters` have one partition per stream, with the same
    number, so that one decoder owns a stream's segments and its state. Retention applies to the buffer
    (`sky.segments`); rows, reports and dead letters are kept seven days, Kafka's own default. `sky.ledger` has one
    partition, whose order is the order of spending, and keeps every entry for seven days before it is compacted.
    """
    compact = {"cleanup.policy": "compact"}
    # Kafka deletes whole log segments only, so the buffer's limit is honoured to one log segment: 1/8 of it is
    # precise enough and keeps files large. 1 MiB is the least that Kafka 4 accepts.
    log_segment_bytes = max(MAX_MESSAGE_BYTES, min(1 << 30, retention_bytes_per_partition // 8))
    buffer = {
        "cleanup.policy": "delete",
        "retention.ms": str(int(retention_seconds * 1000)),
        "retention.bytes": str(retention_bytes_per_partition),
        "segment.bytes": str(log_segment_bytes),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "compression.type": "producer",
    }
    return [
        TopicSpec(STREAMS, 1, compact),
        TopicSpec(PROFILES, 1, compact | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}),
        TopicSpec(PLANS, 1, compact | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}),
        TopicSpec(LEDGER, 1, compact | {"min.compaction.lag.ms": str(_LEDGER_HISTORY_MS)}),
        TopicSpec(SEGMENTS, partitions, buffer),
        TopicSpec(STATE, partitions, compact),
        TopicSpec(REPORTS, partitions),
        TopicSpec(DEAD_LETTERS, partitions, {"max.message.bytes": str(MAX_MESSAGE_BYTES)}),
        *(TopicSpec(rows_topic(pipeline), partitions) for pipeline in pipelines),
    ]
