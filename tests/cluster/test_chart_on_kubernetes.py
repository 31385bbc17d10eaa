"""The whole chart on a real Kubernetes: installed, used, upgraded under load, drained, and alarmed. In this order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import steps
from cluster.steps import (
    NAME,
    Account,
    account,
    firing,
    helm,
    kubectl,
    leading_gateways,
    objects,
    query,
    ready_pods,
    run,
    until,
)
from rendered_chart import CHART, EXAMPLES, NAMESPACE, RELEASE, example_options, render, tool
from skyscraper.demo.watch import Watch

pytestmark = pytest.mark.timeout(1800)

# Strimzi's definitions come in no Go module. A bare pod (helm test's) needs its account, which a dry run does not make.
UNCHECKED = {"KafkaTopic", "KafkaUser", "Pod"}
PARTS = ("decoder", "inference", "tuner", "loader", "burst", "kafka", "publisher-street")
# The shortest notice of any cloud.
NOTICE_SECONDS = 30.0


def test_the_api_server_takes_every_example(namespace: None) -> None:
    for example in EXAMPLES:
        found = [one for one in render(*example_options(example)) if one["kind"] not in UNCHECKED]
        text = yaml.safe_dump_all(found)
        said = run(tool("kubectl"), "-n", NAMESPACE, "apply", "--dry-run=server", "-f", "-", stdin=text, seconds=120)
        assert said.count("(server dry run)") == len(found)


def test_helm_install_brings_everything_up(namespace: None, summary: dict[str, Any]) -> None:
    start = time.monotonic()
    helm("install", RELEASE, str(CHART), "-f", str(steps.VALUES), "--wait", "--wait-for-jobs", "--timeout", "15m")
    summary["install_seconds"] = round(time.monotonic() - start, 1)
    for part in PARTS:
        assert ready_pods(part), part
    restarts = [
        status["restartCount"]
        for part in PARTS
        for pod in objects("pods", part)
        for status in pod["status"]["containerStatuses"]
    ]
    summary["restarts_during_install"] = sum(restarts)


def test_one_gateway_leads_and_the_other_stands_by() -> None:
    assert len(ready_pods("burst")) == 2
    until("one gateway leads", 30, lambda: len(leading_gateways()) == 1)


def test_a_pod_that_is_not_restricted_is_refused() -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rootly"},
        "spec": {"containers": [{"name": "c", "image": "localhost/pause:1", "securityContext": {"privileged": True}}]},
    }
    command = (tool("kubectl"), "-n", NAMESPACE, "apply", "-f", "-")
    done = subprocess.run(command, input=json.dumps(body), capture_output=True, text=True, timeout=60, check=False)
    assert 'violates PodSecurity "restricted' in done.stderr


def test_logs_and_exec_reach_a_pod() -> None:
    # A pod that mounts the tables, as somebody who queries them would.
    pod = next(one for one in render("-f", str(steps.VALUES)) if one["kind"] == "Pod")["spec"]
    container = pod["containers"][0] | {"name": "query", "command": ["sleep", "infinity"], "args": []}
    container["volumeMounts"] = [*container["volumeMounts"], {"name": "warehouse", "mountPath": "/warehouse"}]
    volume = {"name": "warehouse", "persistentVolumeClaim": {"claimName": f"{NAME}-loader"}}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "query"},
        "spec": pod | {"containers": [container], "volumes": [*pod["volumes"], volume]},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(body))
    kubectl("wait", "--for=condition=Ready", "pod/query", "--timeout=60s", seconds=70)
    assert "uid=65532" in kubectl("exec", "query", "--", "id")

    def told() -> bool:
        log = kubectl("logs", f"{NAME}-decoder-0")
        return any(json.loads(line)["event"] == "partitions_assigned" for line in log.splitlines() if line[:1] == "{")

    # A decoder is ready before it has partitions: those of the group come with the next rebalance.
    until("a decoder says what it reads", 60, told)


def test_helm_test_passes() -> None:
    said = helm("test", RELEASE, "--logs", "--timeout", "15m")
    assert " rows, after " in said


def test_a_clip_from_outside_gives_rows_in_the_table(watch: Watch, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("skyscraper")
    source = ("street:people?seed=3&density=5&seconds=8", "--stream", "outside", "--pace", "max", "--max-segments", "4")
    run(str(program), "publish", *source, "--bootstrap", steps.bootstrap(), seconds=180)
    found = account(watch)
    assert watch.totals.streams["outside"].processed >= 3
    assert found.lost == found.dead_lettered == 0

    def all_are_there() -> bool:
        # The account counts segments of all streams: of this clip one may have been done since.
        watch.poll(0.5)
        return _rows("outside") == watch.totals.streams["outside"].rows

    until("the clip's rows are in the table", 90, all_are_there)


def test_prometheus_sees_every_part(prometheus: None) -> None:
    for component in ("decoder", "inference", "tuner", "loader", "burst", "publisher-street"):
        up = f'min(up{{component="{component}"}}) == 1'
        until(f"{component} is scraped", 60, lambda query=up: bool(steps.ask_prometheus(query)))  # type: ignore[misc]
    until("the lag is known", 60, lambda: bool(steps.ask_prometheus("skyscraper_stream_oldest_waiting_seconds")))
    assert not firing("SkyscraperMetricsAbsent")


def test_upgrade_and_rollback_under_load_lose_nothing(watch: Watch, summary: dict[str, Any]) -> None:
    before = account(watch)
    start = time.monotonic()
    # JSON: `--set` takes a fraction for text, which the schema refuses.
    changes = ("decoder.config.commit_interval_seconds=0.7", "burst.config.resolve_seconds=1")
    steps.upgrade("--set-json", ",".join(changes), "--set", "inference.config.max_batch=4")
    summary["upgrade_seconds"] = round(time.monotonic() - start, 1)
    config = objects("configmaps", "decoder")[0]["data"]["config.toml"]
    assert "commit_interval_seconds = 0.7" in config
    until("a gateway leads", 30, lambda: len(leading_gateways()) == 1)
    helm("rollback", RELEASE, "1", "--wait", "--timeout", "15m")
    after = account(watch)
    assert after.published > before.published
    summary["upgrade_lost"] = after.lost - before.lost
    assert after.lost == after.dead_lettered == after.repeated == 0


def test_a_drain_takes_one_pod_of_the_pool_at_a_time(watch: Watch, summary: dict[str, Any]) -> None:
    kubectl("cordon", "spot-node")
    kubectl("rollout", "restart", f"deployment/{NAME}-inference")
    kubectl("rollout", "status", f"deployment/{NAME}-inference", "--timeout=180s", seconds=190)
    until("the old pods are gone", 60, lambda: len(objects("pods", "inference")) == 2)
    assert {pod["spec"]["nodeName"] for pod in ready_pods("inference")} == {"pool-node"}
    kubectl("uncordon", "spot-node")
    fewest, stop = [2], threading.Event()

    def look() -> None:
        while not stop.wait(0.3):
            fewest.append(len(ready_pods("inference")))

    looking = threading.Thread(target=look)
    looking.start()
    selector = "--pod-selector=app.kubernetes.io/component=inference"
    command = (tool("kubectl"), "drain", "pool-node", selector, "--delete-emptydir-data", "--timeout=180s")
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    summary["pool_drain_seconds"] = round(time.monotonic() - start, 1)
    stop.set()
    looking.join()
    assert done.returncode == 0, done.stderr
    # The budget refused the second eviction until the first pod's successor was ready.
    assert "would violate the pod's disruption budget" in done.stderr
    assert min(fewest) == 1
    kubectl("uncordon", "pool-node")
    assert account(watch).lost == 0


def test_a_spot_node_is_left_within_its_notice(watch: Watch, summary: dict[str, Any]) -> None:
    _one_server_on_each_node()
    start = time.monotonic()
    # What a termination handler does at the cloud's notice.
    kubectl("taint", "node", "spot-node", "interrupted=true:NoSchedule")
    drain = ("drain", "spot-node", "--delete-emptydir-data", "--ignore-daemonsets", "--force", "--timeout=60s")
    kubectl(*drain, seconds=70)
    summary["drain_seconds"] = round(time.monotonic() - start, 1)
    assert summary["drain_seconds"] < NOTICE_SECONDS
    kubectl("delete", "node", "spot-node")
    until("the pool is whole again", 120, lambda: len(ready_pods("inference")) == 2)
    found = account(watch)
    assert found.lost == found.dead_lettered == found.repeated == 0


def test_the_lag_alert_fires_without_inference_and_resolves_with_it(prometheus: None, summary: dict[str, Any]) -> None:
    until("no stream is late", 120, lambda: not firing("SkyscraperStreamLagging"))
    kubectl("scale", f"deployment/{NAME}-inference", "--replicas=0")
    after = until("the alert fires", 400, lambda: firing("SkyscraperStreamLagging"), every_seconds=1)
    summary["alert_fired_after_seconds"] = round(after, 1)
    kubectl("scale", f"deployment/{NAME}-inference", "--replicas=2")
    after = until("the alert resolves", 300, lambda: not firing("SkyscraperStreamLagging"), every_seconds=1)
    summary["alert_resolved_after_seconds"] = round(after, 1)


def test_nothing_is_lost_and_nothing_is_there_twice(watch: Watch, summary: dict[str, Any]) -> None:
    kubectl("scale", f"statefulset/{NAME}-publisher-street", "--replicas=0")
    until("the publisher is gone", 60, lambda: not objects("pods", "publisher-street"))
    found: Account = account(watch)
    until("all rows are in the table", 90, lambda: _rows() == found.rows)
    told = query("SELECT count(*) AS rows, count(DISTINCT (_stream, _segment, _row)) AS different FROM counting")[0]
    summary |= {
        "segments": found.published,
        "rows": told["rows"],
        "lost": found.published - watch.accounted() + found.lost,
        "repeated": told["rows"] - told["different"] + found.repeated,
        "dead_lettered": found.dead_lettered,
    }
    assert summary["rows"] == found.rows > 0
    assert summary["lost"] == summary["repeated"] == summary["dead_lettered"] == 0


def _one_server_on_each_node() -> None:
    for node in ("pool-node", "spot-node"):
        there = [pod for pod in ready_pods("inference") if pod["spec"]["nodeName"] == node]
        if len(there) == 2:
            kubectl("cordon", node)
            kubectl("delete", "pod", there[0]["metadata"]["name"])
            until("its successor is ready", 180, lambda: len(ready_pods("inference")) == 2)
            kubectl("uncordon", node)
    assert {pod["spec"]["nodeName"] for pod in ready_pods("inference")} == {"pool-node", "spot-node"}


def _rows(stream: str = "") -> int:
    where = f" WHERE _stream = '{stream}'" if stream else ""
    return int(query(f"SELECT count(*) AS rows FROM counting{where}")[0]["rows"])  # noqa: S608 - our own words
