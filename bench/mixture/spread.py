"""Experts in two processes (gloo), one thread each: rows that travel, against hot experts in every process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from dynamoe import Activation, FfnExperts, Plan
from dynamoe.parallel import ParallelMoE
from dynamoe.placement import home_of
from dynamoe.policies import replication

from mixture.contenders import D_FF, D_MODEL, route

_EXPERTS, _K, _PROCESSES = 16, 2, 2


def measure_spread(*, tokens: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "mixture.spread", str(rank), folder, str(tokens), str(rounds)],
                cwd=Path(__file__).parent.parent,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(_PROCESSES)
        ]
        told = [worker.communicate(timeout=1800)[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise RuntimeError("a process of the benchmark failed; its error is above")
    return dict(json.loads(told[0]))


def _work(rank: int, folder: str, tokens: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    store = dist.FileStore(  # type: ignore[attr-defined]
        f"{folder}/store", _PROCESSES
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=_PROCESSES)
    per_process = _EXPERTS // _PROCESSES
    torch.manual_seed(rank)
    experts = FfnExperts(per_process, D_MODEL, D_FF, activation=Activation.RELU, gated=False)
    plan = Plan(replicas=(1,) * _EXPERTS)
    layers = {
        "rows_travel": ParallelMoE(experts, _K, plan=plan),
        "hot_experts_everywhere": ParallelMoE(experts, _K, plan=plan, policy=replication(processes=2, steps=1)),
    }
    # The same ranking of experts in both processes, other rows.
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(_EXPERTS, generator=generator)
    generator.manual_seed(6 + rank)
    chosen = order[route(tokens, _EXPERTS, _K, "zipf", torch.Generator().manual_seed(7))]
    x = torch.randn(tokens, D_MODEL, generator=generator).requires_grad_()
    weights = torch.softmax(torch.randn(tokens, _K, generator=generator), dim=-1)
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    # The policy has changed its plan after three steps.
    for turn in range(4 + rounds):
        for name, layer in layers.items():
            dist.barrier()
            begun = time.perf_counter()
            layer.mix(x, chosen, weights).square().mean().backward()
            dist.barrier()
            if turn >= 4:
                seconds[name].append(time.perf_counter() - begun)
            layer.step()
            experts.up.grad = experts.down.grad = x.grad = None
    counts = torch.bincount(chosen.reshape(-1), minlength=_EXPERTS).tolist()
    rows = [
        sum(count for one, count in enumerate(counts) if home_of(one, per_process=per_process) == home)
        for home in range(_PROCESSES)
    ]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": medians,
        "speedup": medians["rows_travel"] / medians["hot_experts_everywhere"],
        "hot_experts": sum(1 for one in layers["hot_experts_everywhere"].plan.replicas or () if one > 1),
        "busiest_home_share": max(rows) / sum(rows),
    }


def main(arguments: list[str]) -> None:
    rank, folder, tokens, rounds = arguments
    told = _work(int(rank), folder, int(tokens), int(rounds))
    if rank == "0":
        print(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
