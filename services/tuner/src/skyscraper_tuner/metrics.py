"""Every metric of the tuner."""

from prometheus_client import Counter, Gauge, Histogram

# A plan of one stream takes 30 ms, of 1,000 a quarter of a second; profiles are read on the way.
_PLAN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REFIT_BUCKETS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_RECOVERY_BUCKETS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60)

REPORTS = Counter("skyscraper_tuner_reports", "Reports consumed, by what had become of the segment.", ["outcome"])
REPORTS_LEFT_OUT = Counter("skyscraper_tuner_reports_left_out", "Reports not used, by why.", ["reason"])
DIGESTS = Gauge("skyscraper_tuner_digests", "Records of this process's part of the table.")
LEADING = Gauge("skyscraper_tuner_planning", "1 where this process is the planner.")
PLANS = Counter("skyscraper_tuner_plans", "Rounds of planning, by how they ended.", ["outcome"])
PLAN_SECONDS = Histogram("skyscraper_tuner_plan_seconds", "Time to make one round of plans.", buckets=_PLAN_BUCKETS)
PLAN_VERSION = Gauge("skyscraper_tuner_plan_version", "Version of the newest plan published.")
PLAN_TIME = Gauge(
    "skyscraper_tuner_plan_time_seconds", "When the newest plans were published, in seconds since 1970; 0 before any."
)
STREAMS_PLANNED = Gauge("skyscraper_tuner_planned_streams", "Streams with a plan.")
STREAMS_REFUSED = Gauge("skyscraper_tuner_refused_streams", "Streams that are not admitted.")
STREAMS_UNPLANNED = Gauge("skyscraper_tuner_unplanned_streams", "Streams that cannot be planned, by why.", ["reason"])
WORK_PRICE = Gauge(
    "skyscraper_tuner_work_price", "Normalised quality per core-second now, for a pool that does not lag."
)
USD_PRICE = Gauge("skyscraper_tuner_usd_price", "Normalised quality per dollar.")
CORES = Gauge("skyscraper_tuner_stream_cores", "The stream's own part of the pool.", ["stream"])
DRIFT = Gauge(
    "skyscraper_tuner_drift_error", "Squared prediction error of late, as a multiple of training's.", ["stream"]
)
DRIFTED = Gauge("skyscraper_tuner_drifted", "1 where the content has left what the profile was learned on.", ["stream"])
FORECAST_ERROR = Gauge(
    "skyscraper_tuner_forecast_error", "Mean absolute error of the last window's category shares.", ["stream"]
)
REFITS = Counter("skyscraper_tuner_refits", "Fits learned anew, by what became of them.", ["pipeline", "outcome"])
REFIT_SECONDS = Histogram("skyscraper_tuner_refit_seconds", "Time to learn a fit anew.", buckets=_REFIT_BUCKETS)
SHADOW_SEGMENTS = Gauge("skyscraper_tuner_shadow_segments", "Segments the trial was watched on.", ["pipeline"])
RECOVERY_SECONDS = Histogram(
    "skyscraper_tuner_recovery_seconds",
    "From the start until the part of the service works again.",
    ["part"],
    buckets=_RECOVERY_BUCKETS,
)
