"""What deciding costs: a switch, and plans for one stream and for a thousand.

uv run python bench/control.py --json
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from skyscraper.control.demand import Sample, options
from skyscraper.control.plan import StreamForecast, plan
from skyscraper.control.prices import plan_streams
from skyscraper.simulate.conditions import Resources
from skyscraper.simulate.generate import generate
from skyscraper.simulate.run import Study

REPEATS = 7


def samples(count: int) -> list[Sample]:
    """Streams of one day each, cut from a few: planning does not care whose they are."""
    traces = [generate("diurnal", days=1, seed=seed) for seed in range(min(count, 8))]
    slots = np.arange(traces[0].segments) * 4 // 300
    return [
        Sample(trace.quality, trace.quality, slots, options(trace.work_core_seconds[0], None))
        for trace in (traces[index % len(traces)] for index in range(count))
    ]


def plan_seconds(count: int) -> list[float]:
    streams = samples(count)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        plan_streams(
            streams, cores=0.8 * count, segment_seconds=4, slot_seconds=300, buffer_seconds=21_600, usd_per_day=0
        )
        taken.append(time.perf_counter() - started)
    return taken


def paper_plan_seconds(count: int) -> float:
    rng = np.random.default_rng(0)
    work = np.geomspace(0.3, 20, 8)
    streams = [
        StreamForecast(np.sort(rng.random((4, 8)), axis=1), rng.dirichlet(np.ones(4)), work, np.zeros(8))
        for _ in range(count)
    ]
    started = time.perf_counter()
    plan(streams, work_core_seconds=3.0 * count, usd=0)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="What deciding costs")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity; the output is JSON anyway")
    parser.parse_args()
    study = Study([generate("diurnal", days=2, seed=0)], train_fraction=0.625)
    switch = study.run("priced", Resources(0.8, 3_600), bound=1.0).switch_seconds_p99
    # The first plan of a process compiles, or loads what was compiled before.
    plan_seconds(1)
    print(
        json.dumps(
            {
                "switch_seconds_p99": switch,
                "plan_seconds_1": float(np.median(plan_seconds(1))),
                "plan_seconds_1000": float(np.median(plan_seconds(1000))),
                "paper_plan_seconds_1": paper_plan_seconds(1),
                "paper_plan_seconds_1000": paper_plan_seconds(1000),
            }
        )
    )


if __name__ == "__main__":
    main()
