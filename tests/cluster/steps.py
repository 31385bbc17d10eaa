"""What the cluster's tests do with kubectl, helm, Prometheus and Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rendered_chart import CHART, NAMESPACE, RELEASE, tool
from skyscraper.demo.watch import Watch

VALUES = Path(__file__).parent / "values.yaml"
PROMETHEUS = "http://127.0.0.1:9090"
NAME = f"{RELEASE}-skyscraper"


def run(*command: str, seconds: float = 60.0, stdin: str | None = None) -> str:
    """Standard output. Fails with all that was said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def kubectl(*words: str, seconds: float = 60.0, stdin: str | None = None) -> str:
    return run(tool("kubectl"), "-n", NAMESPACE, *words, seconds=seconds, stdin=stdin)


def helm(*words: str, seconds: float = 1000.0) -> str:
    return run(tool("helm"), "-n", NAMESPACE, *words, seconds=seconds)


def upgrade(*options: str) -> None:
    helm("upgrade", RELEASE, str(CHART), "-f", str(VALUES), "--wait", "--timeout", "15m", *options)


def objects(kind: str, component: str) -> list[dict[str, Any]]:
    found = json.loads(kubectl("get", kind, "-l", f"app.kubernetes.io/component={component}", "-o", "json"))
    return list(found["items"])


def ready_pods(component: str) -> list[dict[str, Any]]:
    """Those that are ready and not about to end."""
    return [
        pod
        for pod in objects("pods", component)
        if "deletionTimestamp" not in pod["metadata"]
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
    ]


def metric(pod: dict[str, Any], name: str) -> float:
    """Sum over its labels; 0 where it is not there."""
    url = f"http://{pod['status']['podIP']}:9464/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own http URL
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def leading_gateways() -> list[str]:
    """Names of pods."""
    pods = ready_pods("burst")
    return [pod["metadata"]["name"] for pod in pods if metric(pod, "skyscraper_burst_leading") == 1]


def until(what: str, seconds: float, check: Callable[[], bool], *, every_seconds: float = 0.5) -> float:
    """Seconds until `check` was true; fails after `seconds`."""
    start = time.monotonic()
    while not check():
        assert time.monotonic() - start < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(every_seconds)
    return time.monotonic() - start


def ask_prometheus(query: str) -> list[dict[str, Any]]:
    url = f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own http URL
        return list(json.load(answer)["data"]["result"])


def firing(alert: str) -> bool:
    return bool(ask_prometheus(f'ALERTS{{alertname="{alert}",alertstate="firing"}}'))


def bootstrap() -> str:
    """Kafka as somebody outside the cluster sees it: a port of a node."""
    return f"{os.environ['NODE_ADDRESS']}:30092"


@dataclass(frozen=True)
class Account:
    """What became of the segments that were in Kafka at one moment."""

    published: int
    lost: int
    repeated: int
    dead_lettered: int
    rows: int


def account(watch: Watch, *, seconds: float = 180.0) -> Account:
    """Wait until the fate of all that is published now is reported."""
    published = watch.published()
    deadline = time.monotonic() + seconds
    while watch.accounted() < published:
        assert time.monotonic() < deadline, f"{watch.accounted()} of {published} segments accounted for"
        watch.poll(0.5)
    views = watch.totals.streams.values()
    return Account(
        published,
        lost=sum(view.lost for view in views),
        repeated=sum(view.duplicates for view in views),
        dead_lettered=sum(view.dead_lettered for view in views),
        rows=sum(view.rows for view in views),
    )


def query(sql: str) -> list[dict[str, Any]]:
    """SQL over the tables, by the command in a pod that mounts them."""
    command = ("skyscraper", "query", "--warehouse", "/warehouse", "--json", sql)
    out = kubectl("exec", "query", "--", *command, seconds=120)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]
