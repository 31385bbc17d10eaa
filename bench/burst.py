"""The burst gateway: what it adds to a request, what it lets through, and what bursting saves.

    uv run python bench/burst.py --json [--quick]

* overhead_seconds_p50, overhead_seconds_p99: percentiles of requests through the gateway less those of the same
  requests sent to the machine directly, alternating one by one. The machine answers at once
  (`burst_processes.DeclaredMachine`); requests are as large as a compressed segment.
* throughput_ratio: segments per second of whole-segment offload through the gateway over sending them to the machine.
  Gateway, machine and callers share this machine's cores.
* placement_error: largest relative error of the placement simulator (`profile/schedule.py`) against measured runs: many
  segments over a slow link to one burst core, and many on the pool's own cores. Tasks are measured one by one before.
* usd_by_quality: dollars a day, by share of the dearest configuration's quality, with buffer only, burst only and both,
  in the simulator; a core-second of the pool costs 1/1.8 of a burst machine's (the paper's supplement L).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from skyscraper.localkafka import LocalBroker
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.models.repository import install_models
from skyscraper.pipeline import Configuration, configure, load_pipeline
from skyscraper.processes import free_ports, spawn, stop
from skyscraper.profile.schedule import Machines, Task, simulate
from skyscraper.rpc.burst_client import BurstClient
from skyscraper.rpc.stage import stage_inputs, stage_model
from skyscraper.simulate.conditions import Resources
from skyscraper.simulate.generate import generate
from skyscraper.simulate.prices import BURST_USD_PER_CORE_SECOND
from skyscraper.simulate.run import Study

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from burst_processes import DECLARED, DeclaredMachine, GatewayProcess, create_ledger, declared

SEGMENT_BYTES = 200_000
MODEL = "nanodet-g"
CAMERA = "street:people?density=12&fps=5&seconds=24&seed=1"
CALL_SECONDS = 60.0
BUDGET = {"budgets": {"default": {"usd": 1e6}}, "retry": {"attempts": 1, "hedge_share": 0.0}}
# Mbit/s is a camera's uplink; so slow that the link is what most of a run waits for.
LINK_BYTES_PER_SECOND = 1_000_000.0
# About the paper's 4 GB, at a camera's 9 Mbit/s.
BUFFER_SECONDS = 3_600.0
POOL_USD_PER_CORE_SECOND = BURST_USD_PER_CORE_SECOND / 1.8


class Direct:
    """The same client, without a gateway between."""

    def __init__(self, target: str) -> None:
        self._client = BurstClient([target], in_flight_bytes=1 << 30)

    def __call__(self, model: str, inputs: dict[str, Any]) -> float:
        """Seconds."""
        begun = time.perf_counter()
        self._client.infer(
            model,
            inputs,
            tenant="default",
            estimated_core_seconds=1.0,
            bid_per_byte=0.0,
            deadline_seconds=CALL_SECONDS,
        )
        return time.perf_counter() - begun


def overhead(folder: Path, bootstrap: str, count: int) -> dict[str, float]:
    machine = DeclaredMachine(folder / "machine", "declared")
    gateway = GatewayProcess(folder / "overhead", bootstrap, [machine.target], **BUDGET)
    try:
        machine.wait_ready()
        gateway.start()
        ways = [Direct(machine.target), Direct(gateway.target)]
        inputs = declared(0.0, SEGMENT_BYTES)
        for way in ways * 100:
            way(DECLARED, inputs)
        seconds = np.array([[way(DECLARED, inputs) for way in ways] for _ in range(count)])
    finally:
        gateway.close()
        machine.stop()
    found = {}
    for percentile in (50, 99):
        direct, through = np.percentile(seconds, percentile, axis=0)
        found[f"direct_seconds_p{percentile}"] = round(float(direct), 6)
        found[f"overhead_seconds_p{percentile}"] = round(float(through - direct), 6)
    return found


class Inference:
    """A machine that does its work."""

    def __init__(self, folder: Path, instances: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_ports(1)[0]
        config = folder / "inference.toml"
        values = {"port": self.port, "models": [MODEL], "stages": ["counting"], "instances": instances}
        config.write_text(tomli_w.dumps(values))
        self.process = spawn([sys.executable, "-m", "skyscraper_inference", "--config", str(config)], folder / "log")

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        stop(self.process, deadline_seconds=20)


def segments(count: int) -> list[dict[str, Any]]:
    """Inputs of the stage model."""
    pipeline = load_pipeline("counting")
    chosen: Configuration = configure(pipeline.knobs, {"model": MODEL})
    read = list(read_segments(parse_source(CAMERA), 2.0))
    return [
        stage_inputs(one.value, chosen, pipeline_version=pipeline.version, expected_frames=one.frames)
        for one in (read * (count // len(read) + 1))[:count]
    ]


def run_all(way: Callable[[str, dict[str, Any]], float], work: Sequence[dict[str, Any]], concurrent: int) -> float:
    """Seconds until the last is back."""
    model = stage_model("counting")
    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        list(pool.map(lambda inputs: way(model, inputs), work))
    return time.perf_counter() - begun


def throughput(folder: Path, bootstrap: str, count: int) -> dict[str, float]:
    machine = Inference(folder / "machine-2", 2)
    gateway = GatewayProcess(folder / "throughput", bootstrap, [machine.target], **BUDGET)
    try:
        gateway.start()
        direct, through = Direct(machine.target), Direct(gateway.target)
        work = segments(count)
        wait_until_answered(through, work[0])
        ratios = [run_all(direct, work, 4) / run_all(through, work, 4) for _ in range(3)]
    finally:
        gateway.close()
        machine.close()
    return {"throughput_ratio": round(float(np.median(ratios)), 4)}


def wait_until_answered(way: Direct, inputs: dict[str, Any]) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            way(stage_model("counting"), inputs)
        except Exception:  # noqa: BLE001 - whatever it is while processes start, the deadline ends it
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def placement(folder: Path, bootstrap: str, count: int) -> dict[str, Any]:
    link = {"uplink_bytes_per_second": LINK_BYTES_PER_SECOND, "burst_bytes": 0}
    away, here = Inference(folder / "away", 1), Inference(folder / "here", 2)
    gateway = GatewayProcess(folder / "placement", bootstrap, [away.target], **BUDGET, link=link)
    found: dict[str, Any] = {}
    try:
        gateway.start()
        through, pool = Direct(gateway.target), Direct(here.target)
        work = segments(count)
        sizes = [sum(tensor.nbytes for tensor in inputs.values()) for inputs in work]
        for way in (through, pool):
            wait_until_answered(way, work[0])
        # As the paper: on the pool as many at once as there are cores.
        one_away = np.array([run_all(Direct(away.target), [inputs], 1) for inputs in work])
        two_here = np.array([run_all(pool, [inputs, inputs], 2) for inputs in work])
        bursting = [
            Task(float(seconds), burst=True, segment_bytes=size) for seconds, size in zip(one_away, sizes, strict=True)
        ]
        local = [Task(float(seconds), burst=False) for seconds in two_here]
        cases = {
            "burst": (bursting, Machines(2, 1, 0.0, LINK_BYTES_PER_SECOND), through),
            "pool": (local, Machines(2), pool),
        }
        for name, (tasks, machines, way) in cases.items():
            expected = max(simulate(tasks, machines))
            measured = run_all(way, work, count)
            found[name] = {
                "simulated_seconds": round(expected, 3),
                "measured_seconds": round(measured, 3),
                "error": round(expected / measured - 1, 4),
            }
    finally:
        gateway.close()
        away.close()
        here.close()
    return {"placement": found, "placement_error": max(abs(one["error"]) for one in found.values())}


def smallest_pool(study: Study, target: float, buffer_seconds: float, low: float, high: float) -> float:
    """Cores with which the mean quality is reached without burst machines, to 2 %; infinite where `high` is too few."""
    if reached(study, high, buffer_seconds, 0.0) < target:
        return float("inf")
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if reached(study, middle, buffer_seconds, 0.0) >= target else (middle, high)
    return high


def cheapest(study: Study, target: float, buffer_seconds: float, pools: Sequence[float], most_usd: float) -> float:
    """Dollars a day for a mean quality, over pools of so many cores with burst machines beside them."""
    best = float("inf")
    for each in pools:
        pool = each * 86_400 * POOL_USD_PER_CORE_SECOND
        low, high = 0.0, min(most_usd, best - pool)
        if high < 0 or reached(study, each, buffer_seconds, high) < target:
            continue
        for _ in range(6):
            middle = (low + high) / 2
            low, high = (low, middle) if reached(study, each, buffer_seconds, middle) >= target else (middle, high)
        best = min(best, pool + high)
    return best


def reached(study: Study, cores: float, buffer_seconds: float, usd_per_day: float) -> float:
    return study.run("priced", Resources(cores, buffer_seconds, usd_per_day), bound=1.0).mean_quality


def dollars(quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in ("diurnal",) if quick else ("diurnal", "bursty", "mosei-long"):
        trace = generate(kind, days=4.0, seed=0, segment_seconds=8.0)
        study = Study([trace], train_fraction=0.5)
        dearest = float(trace.work_core_seconds[:, -1].mean()) / trace.segment_seconds
        floor = (
            1.05 * float(trace.work_core_seconds[:, 0].mean()) / trace.segment_seconds * (1 + study.work_uncertainty)
        )
        top = reached(study, 2 * dearest, 3_600.0, 0.0)
        most = dearest * 86_400 * BURST_USD_PER_CORE_SECOND
        found[kind] = {}
        for share in (0.9,) if quick else (0.8, 0.9, 0.95, 0.98):
            usd: dict[str, float] = {}
            for name, buffer_seconds in (
                ("buffer", 21_600.0),
                ("both", 21_600.0),
                ("burst", 2 * trace.segment_seconds),
            ):
                alone = smallest_pool(study, share * top, buffer_seconds, floor, 4 * dearest)
                usd[name] = alone * 86_400 * POOL_USD_PER_CORE_SECOND
                if name != "buffer":
                    pools = np.geomspace(floor, min(alone, 4 * dearest), 5 if quick else 8)[:-1].tolist()
                    usd[name] = min(usd[name], cheapest(study, share * top, buffer_seconds, pools, most))
            found[kind][str(share)] = {name: round(value, 3) for name, value in usd.items()}
            print(f"{kind} {share}: {usd}", file=sys.stderr)
    return {"usd_by_quality": found}


def main() -> None:
    parser = argparse.ArgumentParser(description="The burst gateway")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity; the output is JSON anyway")
    parser.add_argument("--quick", action="store_true", help="fewer requests, one workload")
    parser.add_argument("--only", choices=("overhead", "throughput", "placement", "dollars"), help="one part")
    arguments = parser.parse_args()
    quick = arguments.quick
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[str], dict[str, Any]]] = {
            "overhead": lambda bootstrap: overhead(folder, bootstrap, 300 if quick else 3_000),
            "throughput": lambda bootstrap: throughput(folder, bootstrap, 12 if quick else 48),
            "placement": lambda bootstrap: placement(folder, bootstrap, 8 if quick else 24),
        }
        wanted = {key: part for key, part in parts.items() if arguments.only in (None, key)}
        if wanted:
            install_models([MODEL])
            with LocalBroker(folder / "kafka") as broker:
                create_ledger(broker.bootstrap_servers)
                for key, part in wanted.items():
                    result |= part(broker.bootstrap_servers)
                    print(f"{key}: {result}", file=sys.stderr)
        if arguments.only in (None, "dollars"):
            result |= dollars(quick)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
