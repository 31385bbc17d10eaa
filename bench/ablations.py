"""What each part of the brain is worth: quality without it, and how it reacts to what is turned.

    uv run python bench/ablations.py --json [--quick]

Shares of the optimum, mean over workloads, at a quarter of the dearest configuration's cores and 1 h of buffer where
nothing else is said. The optimum sees the future and has no buffer limit; `clairvoyant_quality` is `priced` with every
segment's true qualities known once it has arrived, and tells how much of the rest is prediction.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from skyscraper.control.demand import options
from skyscraper.simulate.conditions import Resources
from skyscraper.simulate.generate import generate
from skyscraper.simulate.optimum import optimum
from skyscraper.simulate.run import Study
from skyscraper.simulate.trace import Trace
from skyscraper.simulate.training import Settings

KINDS = ("diurnal", "bursty", "mosei-long")
DAYS, TRAIN, POOL, BUFFER = 8.0, 0.625, 0.25, 3_600.0
# What gives the burst pool about a tenth of the dearest configuration's work.
USD_PER_DAY = 0.6


def cores(trace: Trace, pool: float = POOL) -> float:
    return pool * float(trace.work_core_seconds[:, -1].mean()) / trace.segment_seconds


class Bench:
    def __init__(self, seeds: Sequence[int]) -> None:
        self.traces = [generate(kind, days=DAYS, seed=seed) for kind in KINDS for seed in seeds]

    def share(
        self,
        policy: str = "priced",
        settings: Settings | None = None,
        *,
        buffer_seconds: float = BUFFER,
        usd_per_day: float = 0.0,
        traces: Sequence[Trace] | None = None,
    ) -> float:
        shares = []
        for trace in traces or self.traces:
            study = Study([trace], train_fraction=TRAIN, settings=settings)
            resources = Resources(cores(trace), buffer_seconds, usd_per_day)
            shares.append(study.run(policy, resources).share_of_optimum)
        return round(float(np.mean(shares)), 4)


def parts(bench: Bench) -> dict[str, Any]:
    return {
        "whole": bench.share(),
        "no_look_ahead": bench.share(settings=Settings(look_ahead=False)),
        "no_residual_filter": bench.share(settings=Settings(residuals=False)),
        "no_time_of_day": bench.share(settings=Settings(forecast=False)),
        "no_buffer": bench.share(buffer_seconds=8.0),
        "six_hours_of_buffer": bench.share(buffer_seconds=21_600.0),
        "clairvoyant_quality": bench.share(settings=Settings(clairvoyant=True)),
        "with_burst": bench.share(usd_per_day=USD_PER_DAY),
        "paper": bench.share("skyscraper"),
        "paper_no_forecast": bench.share("skyscraper", Settings(forecast=False)),
        "paper_with_burst": bench.share("skyscraper", usd_per_day=USD_PER_DAY),
    }


def turned(bench: Bench, quick: bool) -> dict[str, dict[str, float]]:
    categories = (2, 4, 16) if quick else (2, 3, 4, 8, 16, 32, 64)
    noises = (0.0, 1.0, 4.0) if quick else (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    intervals = (4.0, 16.0) if quick else (2.0, 4.0, 8.0, 16.0, 32.0)
    horizons = (0.5, 2.0) if quick else (0.25, 0.5, 1.0, 2.0)
    kinds = KINDS[:1] if quick else KINDS

    def generated(**settings: Any) -> list[Trace]:
        return [generate(kind, days=DAYS, seed=0, **settings) for kind in kinds]

    return {
        "paper_by_categories": {
            str(count): bench.share("skyscraper", Settings(categories=count)) for count in categories
        },
        "priced_by_feature_noise": {str(noise): bench.share(traces=generated(feature_noise=noise)) for noise in noises},
        "priced_by_switch_interval_seconds": {
            str(seconds): bench.share(traces=generated(segment_seconds=seconds)) for seconds in intervals
        },
        "paper_by_forecast_horizon_days": {
            str(days): bench.share("skyscraper", Settings(plan_window_seconds=days * 86_400)) for days in horizons
        },
    }


def sharing(quick: bool) -> dict[str, Any]:
    """Quality of streams under one pool over the quality of the same streams with a fair share each.

    Up to 16 streams by `priced` itself; beyond, of the optimum (ground truth), since training a predictor for each
    stream takes longer than it tells.
    """
    found: dict[str, Any] = {}
    kinds = ("bursty", "mosei-long", "diurnal", "mosei-high")
    for count in (1, 4) if quick else (1, 4, 16):
        traces = [generate(kinds[number % 4], days=4, seed=number, segment_seconds=8.0) for number in range(count)]
        total = sum(cores(trace) for trace in traces)
        joint = Study(traces, train_fraction=TRAIN).run("priced", Resources(total, BUFFER), bound=1.0).mean_quality
        alone = [
            Study([trace], train_fraction=TRAIN).run("priced", Resources(total / count, BUFFER), bound=1.0).mean_quality
            for trace in traces
        ]
        found[f"priced_{count}"] = round(joint / float(np.mean(alone)), 4)
    for count in (62,) if quick else (62, 1000):
        traces = [generate(kinds[number % 4], days=0.25, seed=number, segment_seconds=32.0) for number in range(count)]
        choice = options(traces[0].work_core_seconds[0], None)
        share = cores(traces[0], 0.1) * traces[0].segments * traces[0].segment_seconds
        alone_sum = sum(
            optimum(trace.quality, trace.work_core_seconds, choice, work_budget=share, usd_budget=0) for trace in traces
        )
        joint_sum = optimum(
            np.concatenate([trace.quality for trace in traces]),
            np.concatenate([trace.work_core_seconds for trace in traces]),
            choice,
            work_budget=share * count,
            usd_budget=0,
        )
        found[f"optimum_{count}"] = round(joint_sum / alone_sum, 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What each part of the brain is worth")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity; the output is JSON anyway")
    parser.add_argument("--quick", action="store_true", help="one seed, fewer values")
    arguments = parser.parse_args()
    started = time.perf_counter()
    bench = Bench((0,) if arguments.quick else (0, 1))
    result: dict[str, Any] = {"parts": parts(bench)}
    print(f"parts: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    result |= turned(bench, arguments.quick)
    print(f"turned: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    result["gain_of_sharing"] = sharing(arguments.quick)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
