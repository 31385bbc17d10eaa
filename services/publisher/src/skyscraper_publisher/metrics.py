"""Every metric of the publisher."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SEGMENTS = Counter("skyscraper_publisher_segments_total", "Segments acknowledged by the broker.", ["stream"])
BYTES = Counter("skyscraper_publisher_bytes_total", "Bytes of segments acknowledged by the broker.", ["stream"])
SEGMENTS_DROPPED = Counter(
    "skyscraper_publisher_segments_dropped_total",
    "Segments lost: spill_full, spill_failed, too_large, refused (by the broker), mux_failed, stopped.",
    ["stream", "reason"],
)
FRAMES_DROPPED = Counter(
    "skyscraper_publisher_frames_dropped_total",
    "Frames left out while cutting: before_keyframe, open_gop, gop_too_large, corrupt.",
    ["stream", "reason"],
)
TIMESTAMPS_REPAIRED = Counter(
    "skyscraper_publisher_timestamps_repaired_total",
    "Frames whose timestamps were changed: missing_pts, missing_dts, wrap, jump, dts_not_increasing, pts_before_dts.",
    ["stream", "reason"],
)
RECONNECTS = Counter(
    "skyscraper_publisher_reconnects_total",
    "Times a source was opened again: ended, timeout, unreachable, not_found, denied, bad_data, broken, no_video, ...",
    ["stream", "reason"],
)
LONG_SEGMENTS = Counter(
    "skyscraper_publisher_long_segments_total",
    "Segments longer than max_open_seconds because the camera sent no keyframe: shorten its keyframe interval.",
    ["stream"],
)
SEGMENTS_WITHOUT_LOOK = Counter(
    "skyscraper_publisher_segments_without_look_total",
    "Segments published without features of their first frames: busy (its share of a core is used up), too_large, "
    "corrupt, empty, no_video, unknown_codec, failed.",
    ["stream", "reason"],
)
DELIVERY_RETRIES = Counter(
    "skyscraper_publisher_delivery_retries_total", "Segments sent again after the broker refused them.", ["stream"]
)
SPILLED = Counter("skyscraper_publisher_spilled_segments_total", "Segments written to the spill.", ["stream"])
SPILL_DAMAGED = Counter(
    "skyscraper_publisher_spill_damaged_bytes_total", "Spilled bytes that could not be read: torn, corrupt.",
    ["stream", "reason"],
)  # fmt: skip
SPILL_BYTES = Gauge("skyscraper_publisher_spill_bytes", "Bytes that wait on disk.", ["stream"])
QUEUE_BYTES = Gauge("skyscraper_publisher_queue_bytes", "Bytes in memory, not yet acknowledged.", ["stream"])
LAST_PUBLISHED = Gauge(
    "skyscraper_publisher_last_published_timestamp_seconds", "Unix time of the last acknowledgement.", ["stream"]
)
STREAMS = Gauge(
    "skyscraper_publisher_streams_count",
    "Streams by state: running, waiting, done, failed; unusable are those whose entry in sky.streams makes no sense.",
    ["state"],
)
STREAM_CHANGES = Counter(
    "skyscraper_publisher_stream_changes_total",
    "What following the register has led to: open (added), stop, capture (resumed, or another source), forget (paused "
    "or removed, and all of it sent).",
    ["change"],
)
OPEN_FAILURES = Counter(
    "skyscraper_publisher_stream_open_failures_total", "Times a followed stream's spill folder could not be opened."
)
