"""What a run was worth: segments accounted for, rows exactly once, counts against the truth, latency per hop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyiceberg.catalog import Catalog

from skyscraper.bus.reports import Seen, seconds
from skyscraper.lakehouse.query import run_query
from skyscraper.lakehouse.table import OFFSETS_PROPERTY
from skyscraper.v1 import report_pb2


@dataclass(frozen=True)
class Truth:
    """Objects in view over a clip that is looped: `counts[i]` at `times_seconds[i]`, for `seconds` a round."""

    times_seconds: NDArray[np.float64]
    counts: NDArray[np.float64]
    seconds: float

    def mean(self, start_seconds: float, duration_seconds: float) -> float:
        """Mean number in view over a span of the loop; a span may reach over the clip's end."""
        offset = np.mod(self.times_seconds - start_seconds, self.seconds)
        inside = offset < duration_seconds - 1e-6
        return float(self.counts[inside].mean()) if inside.any() else 0.0


@dataclass(frozen=True)
class Counted:
    """One stream's counting against its truth, as means over the run."""

    counted: float
    truth: float
    error: float
    """Mean over segments of |counted - truth|, as a share of the mean truth."""


def compare_counts(
    reports: Sequence[report_pb2.SegmentReport], sightings: Mapping[str, float], truth: Truth
) -> Counted | None:
    """`reports`: one stream's processed segments in order; `sightings`: mean objects in view, by segment id."""
    if not reports:
        return None
    start = seconds(reports[0].event_time)
    counted, true = [], []
    for report in reports:
        counted.append(sightings.get(report.segment_id, 0.0))
        true.append(truth.mean(seconds(report.event_time) - start, report.duration_seconds))
    mean_truth = float(np.mean(true))
    difference = float(np.abs(np.array(counted) - np.array(true)).mean())
    return Counted(float(np.mean(counted)), mean_truth, difference / mean_truth if mean_truth else 0.0)


def sightings_by_segment(catalog: Catalog, namespace: str, label: str) -> dict[str, float]:
    """From the table: mean number of objects in view per segment."""
    sql = (
        "SELECT _segment, sum(frames_seen) / max(frames_analysed) AS in_view "  # noqa: S608 - our own words
        f"FROM counting WHERE label = '{label}' GROUP BY 1"
    )
    return {row["_segment"]: row["in_view"] for row in run_query(catalog, namespace, sql).to_pylist()}


def repeated_rows(catalog: Catalog, namespace: str) -> tuple[int, int]:
    """Rows in the table, and how many of them are there more than once."""
    sql = "SELECT count(*) AS rows, count(*) - count(DISTINCT (_segment, _row)) AS repeated FROM counting"
    (row,) = run_query(catalog, namespace, sql).to_pylist()
    return row["rows"], row["repeated"]


HOPS = ("publish", "wait", "process", "commit", "load")


@dataclass(frozen=True)
class Latencies:
    """Seconds, one entry per processed segment that gave rows. `total` is from the end of the segment's last frame to
    the Iceberg snapshot that holds its rows."""

    hops: Mapping[str, NDArray[np.float64]]
    total: NDArray[np.float64]


def measure_latencies(seen: Sequence[Seen], visible: Mapping[str, float]) -> Latencies:
    """`visible`: by segment id, when its rows could be queried (seconds since the epoch)."""
    hops: dict[str, list[float]] = {hop: [] for hop in HOPS}
    total = []
    for one in seen:
        report = one.report
        if report.segment_id not in visible:
            continue
        captured = seconds(report.event_time) + report.duration_seconds
        moments = [
            captured,
            *(seconds(stamp) for stamp in (report.published_time, report.started_time, report.finished_time)),
            one.committed_seconds,
            visible[report.segment_id],
        ]
        for hop, before, after in zip(HOPS, moments[:-1], moments[1:], strict=True):
            hops[hop].append(after - before)
        total.append(moments[-1] - captured)
    return Latencies({hop: np.array(values) for hop, values in hops.items()}, np.array(total))


def visible_times(catalog: Catalog, name: str, offsets: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """By segment id, the time of the first snapshot that includes its last row. `offsets`: segment id to the partition
    and offset of that row in its rows topic."""
    moments: list[tuple[float, dict[int, int]]] = []
    for snapshot in catalog.load_table(name).snapshots():
        text = snapshot.summary.get(OFFSETS_PROPERTY) if snapshot.summary is not None else None
        if text is not None:
            loaded = {int(partition): int(offset) for partition, offset in json.loads(text).items()}
            moments.append((snapshot.timestamp_ms / 1000, loaded))
    moments.sort(key=lambda moment: moment[0])
    visible = {}
    for segment, (partition, offset) in offsets.items():
        first = next((time for time, loaded in moments if loaded.get(partition, 0) > offset), None)
        if first is not None:
            visible[segment] = first
    return visible


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"p50": float("nan"), "p95": float("nan"), "p99": float("nan")}
    return {f"p{percent}": round(float(np.percentile(values, percent)), 3) for percent in (50, 95, 99)}


def last_row_offsets(messages: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """From the messages of a rows topic: segment id to the place of its last row."""
    places: dict[str, tuple[int, int]] = {}
    for message in messages:
        segment = json.loads(message.value())["_segment"]
        places[segment] = (message.partition(), message.offset())
    return places
