"""Every metric of the loader."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

ROWS = Counter("skyscraper_loader_rows", "Rows committed to Iceberg.", ["pipeline"])
BYTES = Counter(
    "skyscraper_loader_message_bytes", "JSON bytes of the messages whose offsets are committed.", ["pipeline"]
)
COMMITS = Counter("skyscraper_loader_commits", "Iceberg commits, by how they ended.", ["pipeline", "outcome"])
COMMIT_SECONDS = Histogram(
    "skyscraper_loader_commit_seconds", "Length of an Iceberg commit.", ["pipeline"], buckets=_SECONDS
)
CONFLICTS = Counter(
    "skyscraper_loader_conflicts", "Commits tried again because another writer was first.", ["pipeline"]
)
REWINDS = Counter("skyscraper_loader_rewinds", "Topics read again from where the table stands.", ["pipeline", "reason"])
REJECTED = Counter(
    "skyscraper_loader_rejected_rows", "Messages that are no rows, sent to sky.dead-letters.", ["reason"]
)
UNKNOWN_COLUMNS = Counter(
    "skyscraper_loader_unknown_columns", "Values left out because the table has no such column.", ["pipeline"]
)
LOST = Counter(
    "skyscraper_loader_lost_rows",
    "Offsets that retention deleted before they were loaded (rows, and at most a few transaction markers).",
    ["pipeline"],
)
LAG_SECONDS = Gauge("skyscraper_loader_lag_seconds", "Age of the newest committed row's message.", ["pipeline"])
LAG_ROWS = Gauge("skyscraper_loader_lag_rows", "Offsets of the assigned partitions not read yet.", ["pipeline"])
DATA_FILES = Gauge("skyscraper_loader_data_files", "Files of the table's current snapshot.", ["pipeline"])
SNAPSHOTS = Gauge("skyscraper_loader_snapshots", "Snapshots the table remembers.", ["pipeline"])
MERGED = Counter("skyscraper_loader_merged_files", "Small files merged into larger ones.", ["pipeline"])
WAITING = Gauge("skyscraper_loader_waiting_pipelines", "Pipelines whose rows wait in Kafka, by why.", ["reason"])
