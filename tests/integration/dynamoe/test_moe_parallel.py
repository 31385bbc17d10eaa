"""Experts in two processes (gloo): the same numbers as one layer with all of them, hot ones that follow the load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_WORKER = """
import sys
import torch
import torch.distributed as dist
from pathlib import Path
from dynamoe import FfnExperts, MoE, Plan
from dynamoe.fused_optimizer import FusedAdam
from dynamoe.errors import SettingError
from dynamoe.offload import MappedExperts
from dynamoe.parallel import ParallelMoE
from dynamoe.policies import replication

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
N, D, F, K = 6, 8, 16, 2


def alone(dtype):
    torch.manual_seed(0)
    layer = MoE(FfnExperts(N, D, F, dtype=dtype), K, gate=torch.nn.Linear(D, N, bias=False, dtype=dtype))
    return layer


def spread(dtype, **settings):
    whole = alone(dtype)
    mine = FfnExperts(N // 2, D, F, dtype=dtype)
    with torch.no_grad():
        for name in ("up", "down"):
            getattr(mine, name).copy_(getattr(whole.experts, name)[rank * 3 : rank * 3 + 3])
    gate = torch.nn.Linear(D, N, bias=False, dtype=dtype)
    if rank == 0:
        # The other process has other weights until the layer is made.
        gate.load_state_dict(whole.gate.state_dict())
    return ParallelMoE(mine, K, gate=gate, **settings)


def batch(of, rows, dtype):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(of), dtype=torch.float64).to(dtype)


def check(plan, sizes, dtype=torch.float64, near=1e-9):
    whole, layer = alone(dtype), spread(dtype, plan=plan)
    whole.set_plan(Plan(alpha=plan.alpha))
    parts = [batch(one, rows, dtype).requires_grad_() for one, rows in enumerate(sizes)]
    outputs = [whole(part) for part in parts]
    (sum(out.double().square().sum() for out in outputs) / 2).backward()
    x = batch(rank, sizes[rank], dtype).requires_grad_()
    out = layer(x)
    out.double().square().sum().backward()
    assert torch.allclose(out, outputs[rank], atol=near), (plan, (out - outputs[rank]).abs().max())
    # Of one process's loss, where the other's is half of the mean.
    assert torch.allclose(x.grad, 2 * parts[rank].grad, atol=near), plan
    for name in ("up", "down"):
        mine, theirs = getattr(layer.own.experts, name).grad, getattr(whole.experts, name).grad
        assert torch.allclose(mine, theirs[rank * 3 : rank * 3 + 3], atol=near), (plan, name)
    gradient = layer.gate.weight.grad.double()
    dist.all_reduce(gradient)
    assert torch.allclose(gradient / 2, whole.gate.weight.grad.double(), atol=near), plan


for sizes in ((20, 20), (31, 7), (12, 0)):
    check(Plan(), sizes)
    check(Plan(replicas=(2, 1, 1, 1, 2, 1)), sizes)
    check(Plan(replicas=(2,) * N), sizes)
    check(Plan(alpha=0.8, replicas=(1, 1, 2, 1, 1, 1)), sizes)
check(Plan(replicas=(2, 1, 1, 1, 1, 1)), (20, 20), torch.bfloat16, near=0.1)

# All rows of both processes want experts 0 and 4: both become hot, in both processes, in the same step.
layer = spread(torch.float32, plan=Plan(replicas=(1,) * N), policy=replication(processes=2, steps=3))
layer.eval()
chosen = torch.tensor([[0, 4]]).repeat(30, 1)
changed = []
for step in range(10):
    layer.mix(batch(rank, 30, torch.float32), chosen, torch.ones(30, 2))
    changed += [step] if layer.step() else []
assert layer.plan.replicas == (2, 1, 1, 1, 2, 1), layer.plan
told = [None, None]
dist.all_gather_object(told, changed)
assert told[0] == told[1] and len(changed) == 1, told

# Cold experts leave the memory of the process that has them.
mine = FfnExperts(N // 2, 256, 512, device="meta")
mapped = MappedExperts(mine, folder / f"experts-{rank}")
dropped = []
keep = mapped.keep_resident
mapped.keep_resident = lambda counts, limit_bytes: dropped.append(keep(counts, limit_bytes=limit_bytes))
each = sum(file.tensor.nbytes for file in mapped.files) // 3
layer = ParallelMoE(
    mine, 1, plan=Plan(replicas=(1,) * N), policy=replication(processes=2, steps=3), mapped=mapped, resident_bytes=each
)
layer.eval()
for step in range(8):
    chosen = torch.tensor([0] * 20 + [1] * 10 + [3] * 5 + [5] * 5).unsqueeze(1)
    layer.mix(torch.randn(40, 256), chosen, torch.ones(40, 1))
    layer.step()
assert dropped and len(dropped[0]) == 2, dropped

# An optimizer that steps inside the backward pass never sees a replica's gradient.
experts = FfnExperts(N // 2, D, F)
FusedAdam(experts)
layer = ParallelMoE(experts, K)
try:
    layer.set_plan(Plan(replicas=(2,) * N))
except SettingError as error:
    assert "backward" in str(error)
else:
    raise AssertionError("it was not refused")
dist.destroy_process_group()
"""


def test_experts_in_two_processes_are_one_layer(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(rank), str(tmp_path)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=120)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
