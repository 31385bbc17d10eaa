"""One cluster, one installation, tests in the order of the file; the last line is the summary as JSON.

These tests run beside a cluster: `make test-cluster` (tools/kubernetes/cluster.sh). Elsewhere they are not collected.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import steps
from rendered_chart import NAMESPACE, TOOLS, of_kind, render, tool
from skyscraper.demo.watch import Watch

SUMMARY: dict[str, Any] = {}
_COUNTS = {"passed": 0, "failed": 0}
collect_ignore_glob = [] if "NODE_ADDRESS" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def summary() -> dict[str, Any]:
    return SUMMARY


@pytest.fixture(scope="session")
def prometheus() -> Iterator[None]:
    """A real one, on the node, with the chart's rules and the labels that its PodMonitor gives."""
    folder = Path(os.environ["CLUSTER_FOLDER"])
    rules = of_kind(render("-f", str(steps.VALUES)), "ConfigMap")
    text = next(one["data"]["skyscraper.yaml"] for one in rules if "skyscraper.yaml" in one["data"])
    (folder / "rules.yaml").write_text(text)
    # Debian's Prometheus is built without discovery in Kubernetes: a file says what runs.
    targets = folder / "targets.json"
    targets.write_text("[]")
    stop = threading.Event()
    finder = threading.Thread(target=_find_pods, args=(targets, stop), daemon=True)
    finder.start()
    config = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [
            {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        "--web.listen-address=127.0.0.1:9090",
    ]
    with (folder / "log" / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    steps.until("Prometheus answers", 120, _answers)
    yield
    stop.set()
    process.terminate()
    process.wait(10)


def _find_pods(targets: Path, stop: threading.Event) -> None:
    """What the chart's PodMonitor selects, with the labels that it gives."""
    while not stop.wait(3.0):
        found = json.loads(steps.kubectl("get", "pods", "-l", "app.kubernetes.io/name=skyscraper", "-o", "json"))
        groups = [
            {
                "targets": [f"{pod['status']['podIP']}:9464"],
                "labels": {
                    "namespace": NAMESPACE,
                    "pod": pod["metadata"]["name"],
                    "component": pod["metadata"]["labels"]["app.kubernetes.io/component"],
                },
            }
            for pod in found["items"]
            if pod["status"]["phase"] == "Running" and "podIP" in pod["status"]
            if any(port["name"] == "metrics" for one in pod["spec"]["containers"] for port in one.get("ports", []))
        ]
        fresh = targets.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.replace(targets)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{steps.PROMETHEUS}/-/ready", timeout=2):  # noqa: S310 - our own http URL
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def namespace() -> None:
    """Pods that do not hold to Pod Security `restricted` are refused in it; the operators' resources are known."""
    for path in sorted((TOOLS.parent / "definitions").glob("*.yaml")):
        steps.kubectl("apply", "--server-side", "-f", str(path))
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    steps.kubectl("apply", "-f", "-", stdin=json.dumps(body))


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    """Everything that Kafka reports, from outside the cluster."""
    found = Watch({"bootstrap.servers": steps.bootstrap(), "log_level": 2})
    yield found
    found.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _COUNTS["failed"] += 1
    elif report.when == "call" and report.passed:
        _COUNTS["passed"] += 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Each step stands on the one before: after a failure the rest would only time out.
    if _COUNTS["failed"]:
        pytest.skip("an earlier step failed")
    print(f"\n{time.strftime('%T')} {item.name}", flush=True)


def pytest_unconfigure() -> None:
    if SUMMARY:
        print(f"{_COUNTS['passed']} passed, {_COUNTS['failed']} failed")
        print(json.dumps(SUMMARY))
