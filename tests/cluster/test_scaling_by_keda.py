"""A burst pool scaled by a real KEDA: from no machine to several, and back, on the work that waits at the gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster import steps
from cluster.steps import NAME, helm, kubectl, leading_gateways, objects, ready_pods, run, until
from rendered_chart import CHART, RELEASE, TOOLS, tool
from skyscraper.bus.ledger import DEFAULT_TENANT
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.pipeline import configure, load_pipeline
from skyscraper.rpc.burst_client import BurstClient, BurstFailed
from skyscraper.v1 import burst_pb2, burst_pb2_grpc
from skyscraper_decoder.away import send

pytestmark = pytest.mark.timeout(1800)

POOL = f"{NAME}-spot-spot"
MOST_MACHINES = 3
# Together what three machines of one core do in the two seconds that the values allow.
SENDERS, CORE_SECONDS = 12, 0.5
PIPELINE = load_pipeline("counting")
CONFIGURATION = configure(PIPELINE.knobs, {"model": "nanodet-g", "frame_rate": "1", "input_size": "224"})


@dataclass
class Load:
    """Decoders' work: segments sent to the gateways one after the other, by many at once."""

    targets: list[str]
    answered: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._segment = next(iter(read_segments(parse_source("street:people?density=4&fps=5&seconds=4&seed=3"), 2.0)))
        self._client = BurstClient(self.targets, in_flight_bytes=1 << 26)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._senders = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]
        for one in self._senders:
            one.start()

    def stop(self) -> None:
        self._stop.set()
        for one in self._senders:
            one.join(40)
        self._client.close()

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                send(
                    self._client,
                    self._segment.value,
                    PIPELINE,
                    CONFIGURATION,
                    expected_frames=None,
                    tenant=DEFAULT_TENANT,
                    core_seconds=CORE_SECONDS,
                    advantage=0.0,
                    deadline_seconds=30.0,
                )
            except BurstFailed as error:
                with self._lock:
                    self.refusals[error.reason] = self.refusals.get(error.reason, 0) + 1
                self._stop.wait(1.0)
            else:
                with self._lock:
                    self.answered += 1


@pytest.fixture
def load() -> Iterator[Load]:
    found = Load([f"{pod['status']['podIP']}:8100" for pod in objects("pods", "burst")])
    yield found
    found.stop()


def test_keda_runs_with_its_own_manifests(namespace: None) -> None:
    manifests = str(TOOLS.parent / "keda" / "keda.yaml")
    run(tool("kubectl"), "apply", "--server-side", "--force-conflicts", "-f", manifests, seconds=120)
    for name in ("keda-operator", "keda-metrics-apiserver"):
        run(tool("kubectl"), "-n", "keda", "rollout", "status", f"deployment/{name}", "--timeout=300s", seconds=310)
    wait = ("wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=120s")
    run(tool("kubectl"), *wait, seconds=130)


def test_an_idle_pool_has_no_machine(namespace: None, summary: dict[str, Any]) -> None:
    start = time.monotonic()
    values = ("-f", str(steps.VALUES), "-f", str(Path(__file__).parent / "keda.yaml"))
    helm("install", RELEASE, str(CHART), *values)
    # Kafka and the topics come before; nothing else of the release is needed here.
    kubectl("rollout", "status", f"statefulset/{NAME}-burst", "--timeout=900s", seconds=910)
    summary["gateways_ready_after_seconds"] = round(time.monotonic() - start, 1)
    assert len(ready_pods("burst")) == 2
    until("one gateway leads", 30, lambda: len(leading_gateways()) == 1)
    kubectl("wait", "--for=condition=Ready", f"scaledobject/{POOL}", "--timeout=180s", seconds=190)
    # A new Deployment has one, until KEDA has looked.
    until("the pool is empty", 180, lambda: _wanted() == 0 and not objects("pods", "spot-spot"))


def test_work_that_waits_starts_machines_which_do_it(load: Load, summary: dict[str, Any]) -> None:
    asked = until("KEDA wants a machine", 120, lambda: _wanted() >= 1, every_seconds=0.2)
    summary["first_machine_wanted_after_seconds"] = round(asked, 1)
    served = until("a segment is done on it", 600, lambda: load.answered > 0, every_seconds=0.2)
    summary["first_segment_done_after_seconds"] = round(asked + served, 1)
    until("as many machines as there may be", 600, lambda: len(ready_pods("spot-spot")) == MOST_MACHINES)
    autoscaler = json.loads(kubectl("get", "hpa", f"keda-hpa-{POOL}", "-o", "json"))["status"]
    summary["machines"] = len(ready_pods("spot-spot"))
    summary["core_seconds_per_machine_seen"] = autoscaler["currentMetrics"][0]["external"]["current"]["averageValue"]
    assert {pod["spec"]["nodeName"] for pod in ready_pods("spot-spot")} == {"spot-node"}
    before = load.answered
    until("all of them work", 400, lambda: load.answered >= before + 3 * SENDERS)


def test_calm_ends_them_all(summary: dict[str, Any]) -> None:
    calm = until("KEDA wants none", 300, lambda: _wanted() == 0)
    until("none is left", 120, lambda: not objects("pods", "spot-spot"))
    summary["none_wanted_after_seconds"] = round(calm, 1)


def test_what_they_did_is_paid_from_the_budget(summary: dict[str, Any]) -> None:
    (leader,) = leading_gateways()
    address = next(pod["status"]["podIP"] for pod in ready_pods("burst") if pod["metadata"]["name"] == leader)
    with grpc.insecure_channel(f"{address}:8100") as channel:
        stub = burst_pb2_grpc.BurstServiceStub(channel)
        told = stub.GetBudget(burst_pb2.GetBudgetRequest(tenant=DEFAULT_TENANT), timeout=10)
    summary["spent_micro_usd"] = told.spent_micro_usd
    assert 0 < told.spent_micro_usd < told.budget.micro_usd


def _wanted() -> int:
    found = json.loads(kubectl("get", "deployment", POOL, "-o", "json"))
    return int(found["spec"]["replicas"])
