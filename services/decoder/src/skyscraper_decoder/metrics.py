"""Every metric of the decoder."""

from prometheus_client import Counter, Gauge, Histogram

# Segments are about 2 s long; a step takes milliseconds on a GPU pool and seconds on a busy CPU.
_STEP_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_COMMIT_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

SEGMENTS = Counter(
    "skyscraper_decoder_segments", "Segments committed, by what became of them.", ["stream", "pipeline", "outcome"]
)
ROWS = Counter("skyscraper_decoder_rows", "Rows committed.", ["stream", "pipeline"])
DEAD_LETTERS = Counter("skyscraper_decoder_dead_letters", "Segments sent to sky.dead-letters.", ["reason"])
RETRIES = Counter("skyscraper_decoder_retries", "Times a stream had to wait and try again.", ["reason"])
MISSING = Counter(
    "skyscraper_decoder_missing_segments", "Segments known to be missing, by how it is known.", ["reason"]
)
LOST = Counter(
    "skyscraper_decoder_lost_segments", "Segments Kafka's retention deleted before they were processed.", ["stream"]
)
LOST_SECONDS = Counter(
    "skyscraper_decoder_lost_seconds", "Video that retention deleted unprocessed, in seconds.", ["stream"]
)
STATE_RESETS = Counter(
    "skyscraper_decoder_state_resets", "Times a stream's operators began anew although it was not new.", ["reason"]
)
MALFORMED_HEADERS = Counter(
    "skyscraper_decoder_malformed_headers", "Segment headers that could not be read.", ["header"]
)
COMMITS = Counter("skyscraper_decoder_transactions", "Kafka transactions, by how they ended.", ["outcome"])
COMMIT_SECONDS = Histogram("skyscraper_decoder_commit_seconds", "Length of a commit.", buckets=_COMMIT_BUCKETS)
STEP_SECONDS = Histogram(
    "skyscraper_decoder_step_seconds",
    "Length of one segment's step, inference included.",
    ["pipeline"],
    buckets=_STEP_BUCKETS,
)
CORE_SECONDS = Counter(
    "skyscraper_decoder_core_seconds",
    "CPU seconds spent on segments, here (decoder) and in inference.",
    ["pipeline", "where"],
)
LAG_SECONDS = Gauge(
    "skyscraper_stream_lag_seconds", "Age of the video whose rows were committed last.", ["stream", "pipeline"]
)
BACKLOG_SEGMENTS = Gauge("skyscraper_stream_backlog_segments", "Segments in Kafka not yet committed.", ["stream"])
HEADROOM_SECONDS = Gauge(
    "skyscraper_stream_headroom_seconds",
    "Seconds until retention would delete the oldest segment of the backlog.",
    ["stream"],
)
QUALITY = Gauge("skyscraper_stream_quality", "The pipeline's own quality of the last segment.", ["stream", "pipeline"])
STREAMS = Gauge("skyscraper_decoder_streams", "Partitions this decoder owns.")
PAUSED = Gauge("skyscraper_decoder_paused_streams", "Partitions that wait for their own queue to drain.")
WAITING = Gauge("skyscraper_decoder_waiting_streams", "Streams whose next segment waits for its turn in the pool.")
POOL_CORES = Gauge("skyscraper_decoder_pool_cores", "Cores of the pool that this decoder's streams may take.")
POOL_SPEED = Gauge(
    "skyscraper_decoder_pool_speed_ratio", "Core-seconds that the pool delivered per promised one, lately; at most 1."
)
DECISIONS = Counter(
    "skyscraper_decoder_decisions", "Choices of a configuration, by what decided.", ["pipeline", "rule"]
)
PREDICTION_ERROR = Histogram(
    "skyscraper_decoder_prediction_error_ratio",
    "Distance of a segment's quality from its prediction, as a share of what the dearest configuration promised.",
    ["pipeline"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)
WORK_ERROR = Histogram(
    "skyscraper_decoder_work_error_ratio",
    "Real work of a segment over its estimate.",
    ["pipeline"],
    buckets=(0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4),
)
WORK_PRICE = Gauge(
    "skyscraper_decoder_work_price", "Price of a core-second now at no lag, in normalised quality (lambda)."
)
PLAN_STALE = Gauge("skyscraper_decoder_plan_stale", "1 while the newest plan is older than its lease.")
UNREADABLE_PLANS = Counter(
    "skyscraper_decoder_unreadable_plans", "Plans and profiles that cannot be used, by what they are.", ["reason"]
)
SURVEYED = Counter(
    "skyscraper_decoder_surveyed_segments",
    "Segments whose publisher told no features, by what reading their bytes gave: told, empty, corrupt, no_video; "
    "no_look_* where features of the packets were found but none of the first frames.",
    ["reason"],
)
SCOUT_FAILURES = Counter(
    "skyscraper_decoder_look_ahead_failures", "Times that reading or working ahead failed, by where.", ["reason"]
)
BURST_SEGMENTS = Counter(
    "skyscraper_decoder_burst_segments", "Segments whose stateless operators ran on burst machines.", ["pipeline"]
)
BURST_FAILURES = Counter(
    "skyscraper_decoder_burst_failures", "Segments that came back to the pool from burst machines, by why.", ["reason"]
)
BURST_USD = Counter(
    "skyscraper_decoder_burst_usd", "Dollars that committed segments cost on burst machines.", ["pipeline"]
)
BURST_SECONDS = Histogram(
    "skyscraper_decoder_burst_seconds", "How long segments were away.", ["pipeline"], buckets=_STEP_BUCKETS
)
USD_PRICE = Gauge("skyscraper_decoder_usd_price", "Price of a dollar now, in normalised quality (mu).")
