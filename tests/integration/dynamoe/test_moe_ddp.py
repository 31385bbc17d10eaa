"""Two processes with DistributedDataParallel over gloo end with the weights of one process on both halves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_WORKER = """
import sys, torch
import torch.distributed as dist
from dynamoe import FfnExperts, MoE
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
def layer():
    torch.manual_seed(0)
    return MoE(FfnExperts(4, 16, 32), 2)
x = torch.rand(2, 32, 16, generator=torch.Generator().manual_seed(1))
alone, shared = layer(), torch.nn.parallel.DistributedDataParallel(layer())
for model, batch in ((alone, x.reshape(64, 16)), (shared, x[rank])):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
for mine, theirs in zip(shared.module.parameters(), alone.parameters()):
    assert torch.allclose(mine, theirs, atol=1e-5), (mine - theirs).abs().max()
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=120)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
