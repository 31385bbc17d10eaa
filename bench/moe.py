"""Measure the mixture-of-experts library against one-hot dispatch, transformers' grouped_mm and a dense FFN.

Every part runs in processes of its own, once with glibc's malloc as it comes and once tuned (`timing.TUNED_ALLOCATOR`),
for every contender alike. `--clock cpu` takes the process's CPU time on one thread: ratios then mean something on a
machine that others use too. `--quick` measures a few cells. `--part` runs one part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import torch
from mixture import adaptive, cached, grid, memory, spread
from mixture.timing import TUNED_ALLOCATOR

PARTS = ("one_hot", "grid", "grid_untuned", "recompile", "drops", "swaps", "serving", "memory", "spread", "cache")
_MEBIBYTE = 1024**2


def measure(part: str, *, quick: bool) -> Any:
    """One part, in this process."""
    match part:
        case "one_hot":
            cells = grid.QUICK_ONE_HOT if quick else grid.ONE_HOT_CELLS
            return list(grid.measure_one_hot(cells, rounds=2 if quick else 5, seconds=2 if quick else 8))
        case "grid" | "grid_untuned":
            cells = grid.QUICK_GRID if quick else grid.GRID_CELLS
            return list(grid.measure_grid(cells, rounds=3, seconds=2 if quick else 4))
        case "recompile":
            tokens, steps = (512, 12) if quick else (4096, 60)
            return adaptive.measure_recompile(tokens=tokens, steps=steps, drifts=2 if quick else 3)
        case "drops":
            return adaptive.measure_drops(tokens=4096, steps=30 if quick else 300, drifts=3)
        case "swaps":
            return adaptive.measure_swaps(swaps=10 if quick else 200, tokens=256 if quick else 4096)
        case "serving":
            return adaptive.measure_serving(rounds=5 if quick else 25)
        case "memory":
            return memory.measure_memory(limit_bytes=(512 if quick else 2048) * _MEBIBYTE, most=64 if quick else 512)
        case "cache":
            if quick:
                return cached.measure_cache(tokens=512, rounds=3, seeds=1, steps=2600)
            return cached.measure_cache(tokens=4096, rounds=7, seeds=10, steps=6000)
        case "spread":
            return spread.measure_spread(tokens=512 if quick else 4096, rounds=4 if quick else 20)
    raise ValueError(f"there is no part {part}: {', '.join(PARTS)}")


def summary(results: dict[str, Any]) -> dict[str, float]:
    """The figures that the targets name; those whose part was not run are left out."""
    figures: dict[str, float] = {}
    if "one_hot" in results:
        figures["speedup_one_hot_min"] = min(cell["speedup"] for cell in results["one_hot"])
    if "grid" in results:
        figures["ratio_hf_tuned_max"] = max(cell["ratio_transformers"] for cell in results["grid"])
        figures["ratio_hf_tuned_median"] = statistics.median(cell["ratio_transformers"] for cell in results["grid"])
        at_32 = [cell["ratio_dense"] for cell in results["grid"] if cell["cell"].startswith("train fp32 E32 k2 T4096")]
        if at_32:
            figures["ratio_dense"] = max(at_32)
    if "grid_untuned" in results:
        cells = results["grid_untuned"]
        figures["speedup_hf_untuned_median"] = statistics.median(1 / cell["ratio_transformers"] for cell in cells)
    if "memory" in results:
        figures |= {name: value for name, value in results["memory"].items() if name.startswith("size_ratio")}
    if "recompile" in results:
        figures["speedup_recompile"] = results["recompile"]["speedup"]
        figures["peak_ratio_recompile"] = results["recompile"]["peak_ratio"]
    if "cache" in results:
        figures["speedup_cache"] = results["cache"]["speedup"]
        figures["accuracy_gain_cache"] = results["cache"]["accuracy"]["gain"]
    if "spread" in results:
        figures["speedup_replication"] = results["spread"]["speedup"]
    if "drops" in results:
        figures["drops_ratio"] = results["drops"]["ratio_min"]
    if "serving" in results:
        figures["int8_speedup_64"] = results["serving"]["int8_speedup_64"]
    if "swaps" in results:
        figures["swap_pause_share_p99"] = results["swaps"]["pause_share_p99"]
    return figures


def in_child(part: str, given: argparse.Namespace) -> Any:
    """Run one part in a process whose allocator is set up for it."""
    environment = {**os.environ, "MOE_BENCH_CLOCK": given.clock}
    if part != "grid_untuned":
        environment |= TUNED_ALLOCATOR
    arguments = [sys.executable, __file__, "--child", part, "--threads", str(given.threads)]
    done = subprocess.run(
        arguments + (["--quick"] if given.quick else []), env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cells, under five minutes on an idle machine")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: CPU time, on one thread")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        torch.set_num_threads(given.threads)
        print(json.dumps(measure(given.child, quick=given.quick)))
        return
    if given.clock == "cpu":
        given.threads = 1
    results = {}
    for part in given.part or PARTS:
        results[part] = in_child(part, given)
        print(f"measured {part}", file=sys.stderr)
    setting = {"clock": given.clock, "threads": given.threads, "quick": given.quick, "torch": torch.__version__}
    report = {"setting": setting, "summary": summary(results), "parts": results}
    print(json.dumps(report, indent=2) if given.json else json.dumps(report["summary"], indent=2))


if __name__ == "__main__":
    main()
