"""Write the chart's Grafana dashboards from the lists below; `--check` only compares.

A dashboard is a list of panels, three in a row; a panel is a title, a unit and the queries of its lines.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generated import write_or_check

FOLDER = Path(__file__).resolve().parent.parent / "deploy/helm/skyscraper/files/dashboards"
# Grafana's grid is 24 wide.
_COLUMNS = 3
_WIDTH, _HEIGHT = 24 // _COLUMNS, 8
# Every query is of one installation; `$stream` and `$pipeline` are all by default.
NS = 'namespace="$namespace"'
STREAM = f'{NS},stream=~"$stream"'
PIPELINE = f'{NS},pipeline=~"$pipeline"'


@dataclass(frozen=True)
class Panel:
    """`lines`: query and legend of each."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    told: str = ""
    kind: str = "timeseries"


def one(title: str, unit: str, query: str, legend: str = "", told: str = "", kind: str = "timeseries") -> Panel:
    return Panel(title, unit, ((query, legend),), told, kind)


def rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(metric: str, labels: str, by: str, share: float = 0.95) -> str:
    inner = f"sum by (le, {by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {inner})"


FLEET = (
    one("Streams on time", "percentunit", f"skyscraper:streams_on_time:ratio{{{NS}}}", "on time", kind="stat"),
    one("Streams planned", "short", f"max(skyscraper_tuner_planned_streams{{{NS}}})", kind="stat"),
    one("Streams refused", "short", f"max(skyscraper_tuner_refused_streams{{{NS}}})", kind="stat"),
    one(
        "Most behind",
        "s",
        f"topk(10, max by (stream) (skyscraper_stream_oldest_waiting_seconds{{{NS}}}))",
        "{{stream}}",
        "Age of the oldest segment that waits.",
    ),
    one(
        "Least headroom",
        "s",
        f"bottomk(10, min by (stream) (skyscraper_stream_headroom_seconds{{{NS}}}))",
        "{{stream}}",
        "Time until Kafka deletes unprocessed video.",
    ),
    one("Segments", "ops", rate("skyscraper_decoder_segments_total", NS, "outcome"), "{{outcome}}"),
    one("Rows", "ops", rate("skyscraper_decoder_rows_total", PIPELINE, "pipeline"), "{{pipeline}}"),
    one("Core-seconds that wait", "s", f"skyscraper:backlog:core_seconds{{{NS}}}", "waiting"),
    one(
        "Cores used",
        "short",
        rate("skyscraper_decoder_core_seconds_total", PIPELINE, "where"),
        "{{where}}",
        "Core-seconds per second.",
    ),
    one(
        "Lost segments",
        "short",
        f"sum by (stream) (increase(skyscraper_decoder_lost_segments_total{{{NS}}}[1h]))",
        "{{stream}}",
    ),
    one(
        "Dead letters",
        "short",
        f"sum by (reason) (increase(skyscraper_decoder_dead_letters_total{{{NS}}}[1h]))",
        "{{reason}}",
    ),
    Panel(
        "Transactions",
        "ops",
        (
            (rate("skyscraper_decoder_transactions_total", NS, "outcome"), "{{outcome}}"),
            (f"sum(changes(skyscraper_decoder_streams{{{NS}}}[10m]))", "moves of streams in 10 min"),
        ),
    ),
)

STREAMS = (
    one("Behind", "s", f"max by (stream) (skyscraper_stream_oldest_waiting_seconds{{{STREAM}}})", "{{stream}}"),
    one("Age of the newest rows", "s", f"max by (stream) (skyscraper_stream_lag_seconds{{{STREAM}}})", "{{stream}}"),
    one("Backlog", "short", f"max by (stream) (skyscraper_stream_backlog_segments{{{STREAM}}})", "{{stream}}"),
    one("Headroom", "s", f"min by (stream) (skyscraper_stream_headroom_seconds{{{STREAM}}})", "{{stream}}"),
    one("Quality", "short", f"max by (stream) (skyscraper_stream_quality{{{STREAM}}})", "{{stream}}"),
    one("Own part of the pool", "short", f"max by (stream) (skyscraper_tuner_stream_cores{{{STREAM}}})", "{{stream}}"),
    one("Segments published", "ops", rate("skyscraper_publisher_segments_total", STREAM, "stream"), "{{stream}}"),
    one("Bytes published", "Bps", rate("skyscraper_publisher_bytes_total", STREAM, "stream"), "{{stream}}"),
    one(
        "Camera opened again",
        "short",
        f"sum by (stream, reason) (increase(skyscraper_publisher_reconnects_total{{{STREAM}}}[1h]))",
        "{{stream}} {{reason}}",
    ),
    one("Spilled to disk", "bytes", f"max by (stream) (skyscraper_publisher_spill_bytes{{{STREAM}}})", "{{stream}}"),
    one("Forecast error", "short", f"max by (stream) (skyscraper_tuner_forecast_error{{{STREAM}}})", "{{stream}}"),
    one("Drift", "short", f"max by (stream) (skyscraper_tuner_drift_error{{{STREAM}}})", "{{stream}}"),
)

QUALITY = (
    one("Quality, last hour", "short", f"skyscraper:stream_quality:avg1h{{{PIPELINE}}}", "{{pipeline}}"),
    one("Decisions", "ops", rate("skyscraper_decoder_decisions_total", PIPELINE, "rule"), "{{rule}}"),
    Panel(
        "Price of a core-second",
        "short",
        (
            (f"max(skyscraper_decoder_work_price{{{NS}}})", "decoders"),
            (f"max(skyscraper_tuner_work_price{{{NS}}})", "tuner"),
        ),
        "In normalised quality (lambda).",
    ),
    one("Price of a dollar", "short", f"max(skyscraper_tuner_usd_price{{{NS}}})", "mu"),
    one(
        "Prediction error, 95 %",
        "percentunit",
        quantile("skyscraper_decoder_prediction_error_ratio", PIPELINE, "pipeline"),
        "{{pipeline}}",
    ),
    one(
        "Work over its estimate, 95 %",
        "short",
        quantile("skyscraper_decoder_work_error_ratio", PIPELINE, "pipeline"),
        "{{pipeline}}",
    ),
    one("Pool speed", "percentunit", f"avg(skyscraper_decoder_pool_speed_ratio{{{NS}}})", "delivered of promised"),
    one("Plan's age", "s", f"time() - max(skyscraper_tuner_plan_time_seconds{{{NS}}})", "newest plan"),
    one(
        "Re-fits",
        "short",
        f"sum by (pipeline, outcome) (increase(skyscraper_tuner_refits_total{{{PIPELINE}}}[1d]))",
        "{{pipeline}} {{outcome}}",
    ),
    one(
        "Core-seconds by model", "short", rate("skyscraper_inference_work_core_seconds_total", NS, "model"), "{{model}}"
    ),
    one("Rows per batch, median", "short", quantile("skyscraper_inference_batch_rows", NS, "model", 0.5), "{{model}}"),
    one("Queue of inference, 95 %", "s", quantile("skyscraper_inference_queue_seconds", NS, "model"), "{{model}}"),
)

BUFFER = (
    one("Backlog of all streams", "short", f"sum(skyscraper_stream_backlog_segments{{{NS}}})", "segments"),
    one("Least headroom", "s", f"min(skyscraper_stream_headroom_seconds{{{NS}}})", "headroom"),
    one("Published", "Bps", rate("skyscraper_publisher_bytes_total", NS, "namespace"), "bytes"),
    one("Commit, 95 %", "s", quantile("skyscraper_decoder_commit_seconds", NS, "namespace"), "decoders"),
    one("Table commit, 95 %", "s", quantile("skyscraper_loader_commit_seconds", PIPELINE, "pipeline"), "{{pipeline}}"),
    one(
        "Rows not loaded yet", "short", f"sum by (pipeline) (skyscraper_loader_lag_rows{{{PIPELINE}}})", "{{pipeline}}"
    ),
    one(
        "Rows' way to the table",
        "s",
        f"max by (pipeline) (skyscraper_loader_lag_seconds{{{PIPELINE}}})",
        "{{pipeline}}",
    ),
    one("Data files", "short", f"max by (pipeline) (skyscraper_loader_data_files{{{PIPELINE}}})", "{{pipeline}}"),
    one("Streams by decoder", "short", f"max by (pod) (skyscraper_decoder_streams{{{NS}}})", "{{pod}}"),
    one("Paused for their own queue", "short", f"sum by (pod) (skyscraper_decoder_paused_streams{{{NS}}})", "{{pod}}"),
    one("Tries again", "ops", rate("skyscraper_decoder_retries_total", NS, "reason"), "{{reason}}"),
    one(
        "Dropped by publishers",
        "short",
        f"sum by (reason) (increase(skyscraper_publisher_segments_dropped_total{{{NS}}}[1h]))",
        "{{reason}}",
    ),
)

BURST = (
    one("Left of the budget", "currencyUSD", f"max by (tenant) (skyscraper_burst_left_usd{{{NS}}})", "{{tenant}}"),
    one(
        "Spent in an hour",
        "currencyUSD",
        f"sum by (tenant) (increase(skyscraper_burst_spent_usd_total{{{NS}}}[1h]))",
        "{{tenant}}",
    ),
    one(
        "Price of a core-hour",
        "currencyUSD",
        f"max by (pool) (skyscraper_burst_price_usd_per_core_hour{{{NS}}})",
        "{{pool}}",
    ),
    one("Core-seconds that wait", "s", f"max(skyscraper_burst_waiting_core_seconds{{{NS}}})", "waiting"),
    one("Machines", "short", f"max by (pool, state) (skyscraper_burst_endpoints{{{NS}}})", "{{pool}} {{state}}"),
    one("Requests", "ops", rate("skyscraper_burst_requests_total", NS, "code"), "{{code}}"),
    one("Sent again", "ops", rate("skyscraper_burst_retries_total", NS, "reason"), "{{reason}}"),
    one("Not sent", "ops", rate("skyscraper_burst_refused_total", NS, "reason"), "{{reason}}"),
    one("Request, 95 %", "s", quantile("skyscraper_burst_request_seconds", NS, "namespace"), "95 %"),
    one("Ledger commits", "ops", rate("skyscraper_burst_ledger_commits_total", NS, "outcome"), "{{outcome}}"),
    one("Ledger commit, 95 %", "s", quantile("skyscraper_burst_ledger_seconds", NS, "namespace"), "95 %"),
    one(
        "Forfeited by crashes",
        "currencyUSD",
        f"sum by (tenant) (increase(skyscraper_burst_forfeited_usd_total{{{NS}}}[1d]))",
        "{{tenant}}",
    ),
)

DASHBOARDS = {
    "fleet": ("Fleet", FLEET),
    "stream": ("Stream", STREAMS),
    "cost-and-quality": ("Cost and quality", QUALITY),
    "kafka-buffer": ("Kafka as the buffer", BUFFER),
    "burst": ("Burst", BURST),
}


def dashboard(name: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    return {
        "uid": f"skyscraper-{name}",
        "title": f"Skyscraper: {title}",
        "tags": ["skyscraper"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), *(_variable(word) for word in ("namespace", "stream", "pipeline"))]},
        "links": [{"type": "dashboards", "tags": ["skyscraper"], "title": "Skyscraper", "keepTime": True}],
        "panels": [_panel(index, panel) for index, panel in enumerate(panels)],
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    single = label == "namespace"
    metric = "skyscraper_decoder_streams" if single else 'skyscraper_stream_quality{namespace="$namespace"}'
    return {
        "name": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values({metric}, {label})",
        "refresh": 2,
        "multi": not single,
        "includeAll": not single,
        **({} if single else {"allValue": ".*", "current": {"text": "All", "value": "$__all"}}),
    }


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    return {
        "id": index + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.told,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend or "__auto"}
            for number, (query, legend) in enumerate(panel.lines)
        ],
    }


def main() -> int:
    return write_or_check(
        {
            FOLDER / f"{name}.json": json.dumps(dashboard(name, title, panels), indent=1) + "\n"
            for name, (title, panels) in DASHBOARDS.items()
        },
        __doc__,
    )


if __name__ == "__main__":
    sys.exit(main())
