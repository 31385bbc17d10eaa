"""Every metric of the burst gateway."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Counter("skyscraper_burst_requests", "Requests answered, by gRPC status.", ["tenant", "code"])
REFUSED = Counter("skyscraper_burst_refused", "Requests that were not sent, by reason.", ["reason"])
ATTEMPTS = Counter("skyscraper_burst_attempts", "Times a request was sent to a machine, by outcome.", ["pool", "code"])
RETRIES = Counter("skyscraper_burst_retries", "Times a request was sent again, by reason.", ["reason"])
HEDGES = Counter("skyscraper_burst_hedges", "Second tries after the 95th percentile, by who answered.", ["won"])
REQUEST_SECONDS = Histogram(
    "skyscraper_burst_request_seconds", "Length of a request, waits included.", buckets=_SECONDS
)
IN_FLIGHT_BYTES = Gauge("skyscraper_burst_in_flight_bytes", "Request bytes inside.")
WAITING_CORE_SECONDS = Gauge(
    "skyscraper_burst_waiting_core_seconds",
    "Work that was asked for and is not done, what was asked of an empty pool included.",
)
POOL_WAITING_CORE_SECONDS = Gauge(
    "skyscraper_burst_pool_waiting_core_seconds",
    "What waits as KEDA is told it: the cheapest pool first, the rest the next dearer.",
    ["pool"],
)
ENDPOINTS = Gauge("skyscraper_burst_endpoints", "Machines, by what they do.", ["pool", "state"])
BREAKER_OPENED = Counter("skyscraper_burst_breaker_opened", "Times a machine was left alone.", ["pool"])
PRICE = Gauge("skyscraper_burst_price_usd_per_core_hour", "Price of a core now.", ["pool"])
PRICE_FAILURES = Counter("skyscraper_burst_price_failures", "Times a price could not be read.", ["pool", "reason"])
SPENT_USD = Counter("skyscraper_burst_spent_usd", "Dollars charged for measured work.", ["tenant"])
FORFEITED_USD = Counter(
    "skyscraper_burst_forfeited_usd", "Dollars counted as spent because a gateway crashed with them open.", ["tenant"]
)
OVERRUN_USD = Counter("skyscraper_burst_overrun_usd", "Dollars charged beyond what was held.", ["tenant"])
LEFT_USD = Gauge("skyscraper_burst_left_usd", "What the tenant can still spend in its window.", ["tenant"])
OPEN_USD = Gauge("skyscraper_burst_open_usd", "Reserved in the ledger and not spent.", ["tenant"])
UNMEASURED = Counter(
    "skyscraper_burst_unmeasured", "Requests charged by the clock because nobody told their work.", ["reason"]
)
LEADING = Gauge("skyscraper_burst_leading", "1 while this process holds the ledger.")
TAKEOVER_SECONDS = Histogram(
    "skyscraper_burst_takeover_seconds",
    "From the last sign of the old leader until this one serves.",
    buckets=(0.5, 1, 2, 3, 4, 5, 7.5, 10, 20),
)
LEDGER_COMMITS = Counter("skyscraper_burst_ledger_commits", "Ledger transactions, by how they ended.", ["outcome"])
LEDGER_SECONDS = Histogram("skyscraper_burst_ledger_seconds", "Length of a ledger transaction.", buckets=_SECONDS)
BLOCK_WAITS = Counter(
    "skyscraper_burst_block_waits", "Requests that had to wait for a ledger transaction after all.", ["tenant"]
)
LINK_WAIT_SECONDS = Histogram(
    "skyscraper_burst_link_wait_seconds", "Time a request waited for the link.", buckets=_SECONDS
)
EXPIRED_RESERVATIONS = Counter(
    "skyscraper_burst_expired_reservations", "Reservations charged in full because nobody ended them.", ["tenant"]
)
