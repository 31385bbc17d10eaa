"""Target 2: how many experts train with Adam inside one memory limit, found by bisection.

Every trial is a process of its own with RLIMIT_DATA set a fixed number of bytes above what it holds once its libraries
are loaded. That limit counts private memory, which has to stay resident without swap; pages of mapped files, which the
kernel can write back and drop, it does not count (RLIMIT_AS would forbid files larger than memory).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from dynamoe import Activation, FfnExperts, MoE
from dynamoe.fused_optimizer import FusedAdam
from dynamoe.memory import Arena
from dynamoe.offload import MappedExperts

from mixture.contenders import D_FF, D_MODEL, Case, Layer, Problem, one_hot, problem, route, transformers_grouped

CONTENDERS = ("one_hot", "transformers", "ours", "ours_in_files")
_TOKENS = 2048
_STEPS = 2


def measure_memory(*, limit_bytes: int, most: int) -> dict[str, Any]:
    """Experts that fit for each contender; `most` ends the search (files can hold more)."""
    fits: dict[str, int] = {}
    for contender in CONTENDERS:
        low, high = 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            if _trial(contender, middle, limit_bytes):
                low = middle
            else:
                high = middle
        fits[contender] = low
    each = 2 * D_MODEL * D_FF
    return {
        "limit_bytes_above_libraries": limit_bytes,
        "tokens": _TOKENS,
        "experts": fits,
        "parameters": {name: count * each for name, count in fits.items()},
        "search_ended_at": most,
        "size_ratio_one_hot": fits["ours_in_files"] / max(1, fits["one_hot"]),
        "size_ratio_hf": fits["ours_in_files"] / max(1, fits["transformers"]),
        "size_ratio_hf_without_files": fits["ours"] / max(1, fits["transformers"]),
    }


def _trial(contender: str, experts: int, limit_bytes: int) -> bool:
    if experts == 0:
        return True
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-m", "mixture.memory", contender, str(experts), str(limit_bytes), folder]
        done = subprocess.run(
            arguments, cwd=Path(__file__).parent.parent, capture_output=True, timeout=900, check=False
        )
    return done.returncode == 0


def _train(contender: str, experts: int, folder: Path) -> None:
    if contender.startswith("ours"):
        _train_ours(experts, folder if contender == "ours_in_files" else None)
        return
    made = problem(Case(experts, 1, _TOKENS, "fp32", "uniform", True))
    layer: Layer = transformers_grouped(made) if contender == "transformers" else one_hot(made, 1.25, None)
    optimizer = torch.optim.Adam([made.up, made.down], foreach=False)
    for _ in range(_STEPS):
        layer().backward(made.towards)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _train_ours(n: int, folder: Path | None) -> None:
    device = None if folder is None else "meta"
    experts = FfnExperts(n, D_MODEL, D_FF, activation=Activation.RELU, gated=False, device=device)
    optimizer = FusedAdam(experts, device=device)
    if folder is not None:
        MappedExperts(experts, folder).optimizer(optimizer)
    layer = MoE(experts, 1, arena=Arena(keep_bytes=64 * 1024**2))
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(_TOKENS, D_MODEL, generator=generator, requires_grad=True), torch.ones(_TOKENS, 1)
    for _ in range(_STEPS):
        layer.mix(x, route(_TOKENS, n, 1, "uniform", generator), weights).square().mean().backward()


def _private_bytes() -> int:
    """VmData of /proc/self/status, which RLIMIT_DATA is compared with."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def main(arguments: list[str]) -> None:
    contender, experts, limit_bytes, folder = arguments
    torch.set_num_threads(1)
    _warm()
    ceiling = _private_bytes() + int(limit_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    _train(contender, int(experts), Path(folder))


def _warm() -> None:
    """Load what every contender's first step loads, so that it does not count."""
    made: Problem = problem(Case(2, 1, 64, "fp32", "uniform", True))
    for layer in (transformers_grouped(made), one_hot(made, 1.25, None)):
        layer().backward(made.towards)


if __name__ == "__main__":
    main(sys.argv[1:])
