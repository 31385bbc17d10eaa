"""Every metric of the inference service."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

REQUESTS = Counter("skyscraper_inference_requests", "Requests answered, by gRPC status.", ["model", "code"])
REFUSED = Counter("skyscraper_inference_refused", "Requests not run, by reason.", ["reason"])
QUEUE_BYTES = Gauge("skyscraper_inference_queue_bytes", "Input tensors waiting.")
QUEUE_SECONDS = Histogram(
    "skyscraper_inference_queue_seconds", "Time a request waited for its batch.", ["model"], buckets=_SECONDS
)
BATCH_ROWS = Histogram(
    "skyscraper_inference_batch_rows", "Rows per batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
BATCH_SECONDS = Histogram("skyscraper_inference_batch_seconds", "Wall time of a batch.", ["model"], buckets=_SECONDS)
WORK = Counter("skyscraper_inference_work_core_seconds", "CPU time spent in models.", ["model"])
MODELS = Gauge("skyscraper_inference_models", "Models by state.", ["state"])
NOTICES = Counter("skyscraper_inference_notices", "Times this process was told to go, by whom.", ["source"])
NOTICE_FAILURES = Counter(
    "skyscraper_inference_notice_failures", "Times the cloud's metadata server could not be asked."
)
EXPERT_ROWS = Counter(
    "skyscraper_inference_expert_rows", "Rows that experts were asked to take.", ["model", "layer", "expert"]
)
DROPPED_ROWS = Counter(
    "skyscraper_inference_dropped_rows",
    "Rows that an expert did not take, by reason: capacity is the request's own.",
    ["model", "reason"],
)
RECOMPILATIONS = Counter(
    "skyscraper_inference_recompilations",
    "Plans of mixture-of-experts layers put in place, by what changed, or failed to be built.",
    ["model", "reason"],
)
RECOMPILATION_SECONDS = Histogram(
    "skyscraper_inference_recompilation_seconds", "Time to build a plan, beside the load.", ["model"], buckets=_SECONDS
)
