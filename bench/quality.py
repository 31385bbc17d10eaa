"""Quality, cost and safety of every policy over workloads, pools and buffers, as the paper's Table 2.

    uv run python bench/quality.py --json [--out FOLDER] [--quick]

Every cell trains on the first 5 of 8 days and replays the rest. Prints one JSON object (with --json, else a table):

* min_share_6h, min_share_1h: the least share of the optimum that `priced` reaches where static stays below 0.9;
* worst_minus_paper: the least difference of shares, priced minus the paper's controller, over every cell;
* cost_ratio_static, cost_ratio_paper: medians, over workloads, of the cores that the other needs for the quality of
  `priced`, over the cores of `priced`;
* overflow_segments, overspend_usd: sums over every run of a guarded policy, disturbed ones included.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from skyscraper.simulate.conditions import Disturbance, Resources
from skyscraper.simulate.generate import KINDS, generate
from skyscraper.simulate.run import Outcome, Study
from skyscraper.simulate.stretch import stretch
from skyscraper.simulate.trace import Trace, load_trace

BUFFERS = {"200s": 200.0, "1h": 3_600.0, "6h": 21_600.0}
# Of the cores that the dearest configuration takes in real time.
POOLS = (0.08, 0.15, 0.25, 0.4, 0.7)
GUARDED = ("static", "videostorm", "skyscraper", "priced")
DAYS, TRAIN = 8.0, 0.625
# Recordings in bench/traces (see the README there), and the seeds of their cameras.
RECORDED = {"street-people": 5, "street-vehicles": 6}
STATIC_IS_POOR_BELOW = 0.9


def workloads(seeds: Sequence[int], days: float) -> dict[str, list[Trace]]:
    """Generated content, and recordings of the counting pipeline on street cameras (real pixels) over full days. What
    the test days show was not seen in training; each third of training shows segments of its own, too."""
    found = {kind: [generate(kind, days=days, seed=seed) for seed in seeds] for kind in KINDS}
    parts = (TRAIN / 3, TRAIN / 3, TRAIN / 3, 1 - TRAIN)
    for name, camera_seed in RECORDED.items():
        base = load_trace(Path(__file__).parent / "traces" / f"{name}.npz")
        found[name] = [stretch(base, days=days, seed=seed, base_seed=camera_seed, parts=parts) for seed in seeds]
    return found


def dearest_cores(trace: Trace) -> float:
    return float(trace.work_core_seconds[:, -1].mean()) / trace.segment_seconds


def cells(study: Study, trace: Trace) -> list[dict[str, Any]]:
    found = []
    for buffer, seconds in BUFFERS.items():
        for part in POOLS:
            cores = part * dearest_cores(trace)
            resources = Resources(cores, seconds)
            bound = study.bound(resources)
            outcomes = {name: study.run(name, resources, bound=bound) for name in (*GUARDED, "chameleon")}
            found.append({"buffer": buffer, "pool": part, "cores": cores, "outcomes": outcomes})
    return found


def disturbed(study: Study, trace: Trace) -> list[Outcome]:
    """Wrong estimates, an hour's outage, drift in mid-run, a budget: every guarded policy must hold its promises."""
    cores = 0.25 * dearest_cores(trace)
    drifting = replace(
        trace, quality=trace.quality * np.where(np.arange(trace.segments) > 0.8 * trace.segments, 0.5, 1)[:, None]
    )
    runs = []
    for name in GUARDED:
        for factor in (0.7, 1.3):
            careful = Resources(cores, 3_600, uncertainty=1.3 * (1 + study.work_uncertainty) - 1)
            runs.append(study.run(name, careful, Disturbance(work_factor=factor), bound=1.0))
        reserve = Resources(cores, 21_600, reserve_seconds=3_600)
        runs.append(study.run(name, reserve, Disturbance(1.0, study.test_seconds / 2, 3_600), bound=1.0))
        runs.append(study.run(name, Resources(cores, 3_600, usd_per_day=1.0), bound=1.0))
    late = Study([drifting], train_fraction=TRAIN)
    runs += [late.run(name, Resources(cores, 3_600), bound=1.0) for name in GUARDED]
    return runs


def cores_for(study: Study, policy: str, quality: float, low: float, high: float, buffer_seconds: float) -> float:
    """The least cores with which a policy reaches a mean quality; `high` where it does not even there."""
    for _ in range(12):
        middle = (low * high) ** 0.5
        reached = study.run(policy, Resources(middle, buffer_seconds), bound=1.0).mean_quality >= quality
        low, high = (low, middle) if reached else (middle, high)
    return high


def cost_ratios(study: Study, trace: Trace) -> dict[str, float]:
    """At 6 h of buffer and the pool that gives `priced` 0.15 of the dearest's cores."""
    cores = 0.15 * dearest_cores(trace)
    target = study.run("priced", Resources(cores, 21_600), bound=1.0).mean_quality
    most = 1.2 * dearest_cores(trace)
    return {
        name: cores_for(study, policy, target, cores / 2, most, 21_600) / cores
        for name, policy in (("static", "static"), ("paper", "skyscraper"))
    }


def draw(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Cost against quality, one picture for each workload, as PNG and one HTML page."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({row["workload"] for row in rows})
    figure, axes = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3.6), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row["workload"] == name and row["buffer"] == "6h" and row["seed"] == 0]
        for policy in (*GUARDED, "chameleon"):
            axis.plot(
                [row["cores"] for row in mine],
                [row["outcomes"][policy].share_of_optimum for row in mine],
                marker="o",
                label=policy,
            )
        axis.set(title=f"{name}, 6 h buffer", xlabel="cores", xscale="log")
        axis.set_xticks([row["cores"] for row in mine], [f"{row['cores']:.2g}" for row in mine])
        axis.set_xticks([], minor=True)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("share of the optimum")
    axes[0][0].legend()
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    (folder / "quality.png").write_bytes(picture.getvalue())
    encoded = base64.b64encode(picture.getvalue()).decode()
    lines = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in (heading(), *map(line_of, rows))
    )
    (folder / "quality.html").write_text(
        "<!doctype html><meta charset=utf-8><title>Cost and quality</title>"
        "<style>body{font:14px sans-serif;margin:2em}td{padding:.2em .8em;text-align:right}img{max-width:100%}</style>"
        f"<h1>Cost and quality</h1><img alt='share of the optimum by cores' src='data:image/png;base64,{encoded}'>"
        f"<table>{lines}</table>",
        encoding="utf-8",
    )


def heading() -> list[str]:
    return ["workload", "seed", "buffer", "cores", *GUARDED, "chameleon (lost)"]


def line_of(row: dict[str, Any]) -> list[str]:
    outcomes = row["outcomes"]
    shares = [f"{outcomes[name].share_of_optimum:.3f}" for name in GUARDED]
    last = f"{outcomes['chameleon'].share_of_optimum:.3f} ({outcomes['chameleon'].overflow_segments})"
    return [row["workload"], str(row["seed"]), row["buffer"], f"{row['cores']:.2f}", *shares, last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one seed instead of three")
    parser.add_argument("--out", type=Path, help="folder for quality.png and quality.html")
    arguments = parser.parse_args()
    started = time.perf_counter()
    seeds = (0,) if arguments.quick else (0, 1, 2)
    rows: list[dict[str, Any]] = []
    runs: list[Outcome] = []
    ratios: list[dict[str, float]] = []
    for name, traces in workloads(seeds, DAYS).items():
        for seed, trace in enumerate(traces):
            study = Study([trace], train_fraction=TRAIN)
            rows += [{"workload": name, "seed": seed} | cell for cell in cells(study, trace)]
            runs += disturbed(study, trace)
            ratios.append(cost_ratios(study, trace))
            print(f"{name} {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    runs += [row["outcomes"][name] for row in rows for name in GUARDED]

    def least(buffer: str) -> float:
        return min(
            float(row["outcomes"]["priced"].share_of_optimum)
            for row in rows
            if row["buffer"] == buffer and row["outcomes"]["static"].share_of_optimum < STATIC_IS_POOR_BELOW
        )

    result = {
        "min_share_6h": least("6h"),
        "min_share_1h": least("1h"),
        "min_share_200s": least("200s"),
        "worst_minus_paper": min(
            row["outcomes"]["priced"].share_of_optimum - row["outcomes"]["skyscraper"].share_of_optimum for row in rows
        ),
        "cost_ratio_static": statistics.median(ratio["static"] for ratio in ratios),
        "cost_ratio_paper": statistics.median(ratio["paper"] for ratio in ratios),
        "cost_ratios": ratios,
        "overflow_segments": sum(run.overflow_segments for run in runs),
        "overspend_usd": sum(run.overspend_usd for run in runs),
        "runs": len(runs),
        "seconds": time.perf_counter() - started,
    }
    if arguments.out:
        draw(rows, arguments.out)
    if arguments.json:
        print(
            json.dumps(result | {"cells": [dict(zip(heading(), line_of(row), strict=True)) for row in rows]}, indent=1)
        )
        return
    for line in (heading(), *map(line_of, rows)):
        print("  ".join(f"{cell:>12}" for cell in line))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
