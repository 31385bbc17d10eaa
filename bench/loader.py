"""What loading costs: rows/s from JSON to a committed snapshot, and what N small commits leave behind.

    uv run python bench/loader.py [--commits 300] [--json]

No broker takes part: the loader's own functions write to a SQLite catalog on the local disk. `small commits` are those
of a loader that commits every second (100 rows each), once without maintenance and once with a round every 60 commits
that keeps the snapshots of the last 10 s. The last line is one JSON object; seconds depend on the machine, counts and
bytes do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from skyscraper.lakehouse import CatalogConfig, RowTable, open_catalog
from skyscraper.lakehouse.maintenance import maintain
from skyscraper.lakehouse.schema import parse_row
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

SCHEMA = RowSchema((Column("at", ColumnType.TIMESTAMP, "When."), Column("people", ColumnType.INT64, "How many.")), "at")
START = datetime(2026, 1, 1, 8, tzinfo=UTC)
LARGE_BATCH_ROWS = 50_000
SMALL_BATCH_ROWS = 100
ROUND_COMMITS = 60
KEEP_SECONDS = 10.0


def messages(first: int, count: int) -> list[bytes]:
    """Rows as the decoder writes them: ten a second of one camera."""
    return [
        SCHEMA.encode(
            {"at": START + timedelta(milliseconds=100 * number), "people": number % 7},
            stream_id="gate-1",
            segment=f"gate-1/1/{number // 20}",
            index=number % 20,
        )
        for number in range(first, first + count)
    ]


def load(table: RowTable, values: list[bytes], start: int | None) -> float:
    """Parse and commit; returns the seconds of the commit alone."""
    rows = [parse_row(value, table.columns)[0] for value in values]
    began = time.perf_counter()
    table.append(rows, after={0: start}, offsets={0: (start or 0) + len(values)})
    return time.perf_counter() - began


def rows_per_second(folder: Path) -> float:
    table = RowTable(open_catalog(CatalogConfig(warehouse_path=folder)), "rows", "bench", SCHEMA)
    load(table, messages(0, 100), None)
    values = messages(100, LARGE_BATCH_ROWS)
    rates = []
    for turn in range(3):
        began = time.perf_counter()
        load(table, values, 100 + turn * LARGE_BATCH_ROWS)
        rates.append(LARGE_BATCH_ROWS / (time.perf_counter() - began))
    return statistics.median(rates)


def small_commits(folder: Path, commits: int, *, maintained: bool) -> dict[str, Any]:
    table = RowTable(open_catalog(CatalogConfig(warehouse_path=folder)), "rows", "bench", SCHEMA)
    seconds, rounds = [], []
    for number in range(commits):
        first = number * SMALL_BATCH_ROWS
        seconds.append(load(table, messages(first, SMALL_BATCH_ROWS), first or None))
        if maintained and number % ROUND_COMMITS == ROUND_COMMITS - 1:
            began = time.perf_counter()
            maintain(
                table,
                now=datetime.now(UTC),
                keep_snapshots_seconds=KEEP_SECONDS,
                delete_after_seconds=KEEP_SECONDS,
            )
            rounds.append(time.perf_counter() - began)
    files = [path for path in folder.rglob("*") if path.is_file()]
    metadata = [path for path in files if path.parent.name == "metadata"]
    last = seconds[-min(50, commits) :]
    return {
        "commit_seconds_p50": round(statistics.median(seconds), 4),
        "commit_seconds_p95": round(statistics.quantiles(seconds, n=20)[-1], 4),
        "last_commits_seconds_p50": round(statistics.median(last), 4),
        "round_seconds_max": round(max(rounds, default=0.0), 3),
        "data_files_read": len(list(table.table.scan().plan_files())),
        "files": len(files),
        "metadata_bytes": sum(path.stat().st_size for path in metadata),
        "newest_metadata_json_bytes": Path(table.table.metadata_location.removeprefix("file://")).stat().st_size,
        "snapshots": len(table.table.snapshots()),
        "rows": table.table.scan().count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "commits": arguments.commits,
            "rows_per_second": round(rows_per_second(folder / "large")),
            "without_maintenance": small_commits(folder / "plain", arguments.commits, maintained=False),
            "with_maintenance": small_commits(folder / "maintained", arguments.commits, maintained=True),
        }
    assert result["without_maintenance"]["rows"] == result["with_maintenance"]["rows"]
    if not arguments.json:
        for key in ("without_maintenance", "with_maintenance"):
            print(key, json.dumps(result[key], indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
