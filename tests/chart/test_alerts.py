"""Every alert fires when it should, is quiet when it should, has a runbook, and asks for metrics that there are."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from rendered_chart import CHART, NAMESPACE, ROOT, of_kind, render, run, tool

CASES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text(encoding="utf-8"))
SERVICES = [
    service
    for service in ("publisher", "decoder", "inference", "tuner", "loader", "burst")
    if importlib.util.find_spec(f"skyscraper_{service}") is not None
]
OPTIONS = (
    *("--set", "kafka.mode=builtin,monitoring.rules.configMap=true,monitoring.rules.qualityTargets.counting=2"),
    *("--set", "burst.enabled=true,burst.pools[0].name=spot,burst.pools[0].cloud=generic,burst.pools[0].cores=1"),
    *("--set", "burst.pools[0].minReplicas=0,burst.pools[0].maxReplicas=2"),
)


def rules_text() -> str:
    found = [one for one in of_kind(render(*OPTIONS), "ConfigMap") if "skyscraper.yaml" in one["data"]]
    return str(found[0]["data"]["skyscraper.yaml"])


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(rules_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool_test(name: str, case: dict[str, Any], count: int) -> dict[str, Any]:
    labels = f'namespace="{NAMESPACE}"'
    return {
        "interval": "1m",
        "input_series": [
            {"series": series.replace("N", labels, 1) if "{N" in series else series, "values": values}
            for series, values in case["series"].items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{case['at']}m",
                "exp_samples": [{"labels": "{}", "value": count}],
            }
        ],
    }


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules_text())
    run(tool("promtool"), "check", "rules", str(tmp_path / "rules.yaml"))


def test_every_alert_fires_and_is_quiet_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules_text())
    assert CASES.keys() == alerts().keys()
    tests = [
        promtool_test(name, case[word], count)
        for name, case in CASES.items()
        for word, count in (("fires", 1), ("quiet", 0))
    ]
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": tests}))
    run(tool("promtool"), "test", "rules", str(tmp_path / "test.yaml"))


@pytest.mark.parametrize("name", CASES)
def test_an_alert_says_what_where_and_what_to_do(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"].endswith(f"/{name}.md")
    assert (ROOT / "docs" / "runbooks" / f"{name}.md").is_file()


def exported() -> set[str]:
    """Names under which the services export their metrics."""
    names: set[str] = set()
    for service in SERVICES:
        for metric in vars(importlib.import_module(f"skyscraper_{service}.metrics")).values():
            if isinstance(metric, MetricWrapperBase):
                told = next(iter(metric.describe()))
                suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(told.type, [""])
                names |= {told.name + suffix for suffix in suffixes}
    return names


def recorded() -> set[str]:
    return set(re.findall(r"record: (\S+)", rules_text()))


@pytest.mark.parametrize("source", ["rules", *sorted(path.stem for path in CHART.glob("files/dashboards/*.json"))])
def test_only_metrics_that_there_are_are_asked_for(source: str) -> None:
    path = CHART / "files" / "dashboards" / f"{source}.json"
    text = rules_text() if source == "rules" else path.read_text(encoding="utf-8")
    asked = set(re.findall(r"\bskyscraper(?:_[a-z0-9]+)+(?=\{)", text))
    asked |= set(re.findall(r"\bskyscraper:[a-z0-9_:]+(?=\{)", text))
    assert asked
    if "burst" not in SERVICES:
        asked = {name for name in asked if not name.startswith("skyscraper_burst_")}
    assert asked <= exported() | recorded()
