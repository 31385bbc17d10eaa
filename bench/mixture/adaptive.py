"""Targets 3 and 7: what recompilation brings on routing that is skewed and drifts, and what a swap costs."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from dynamoe import Activation, FfnExperts, MoE, Overflow, Plan, Precision, Rows
from dynamoe.memory import Arena
from dynamoe.policies import local_capacity, recompile
from dynamoe.recompile import Change, Recompile

from mixture.contenders import D_FF, D_MODEL, Case, our_layer, problem, route
from mixture.timing import clock, run_once

_EXPERTS, _K = 32, 2


def drifting_routes(*, steps: int, tokens: int, drifts: int, seed: int) -> list[torch.Tensor]:
    """Zipf routing whose ranking of experts is drawn anew `drifts` times."""
    generator = torch.Generator().manual_seed(seed)
    routes = []
    for index in range(steps):
        if index % max(1, steps // drifts) == 0:
            order = torch.randperm(_EXPERTS, generator=generator)
        shares = 1 / torch.arange(1, _EXPERTS + 1)[order.argsort()]
        routes.append(torch.multinomial(shares.expand(tokens, _EXPERTS), _K, generator=generator))
    return routes


def measure_recompile(*, tokens: int, steps: int, drifts: int) -> dict[str, Any]:
    """A static plan with one alpha that drops nothing in the whole run, against local capacities that follow.

    Both compute their whole capacity, so both have shapes known beforehand; both drop nothing (the moving plan grows
    for the step where a row would not fit). `exact` computes only the rows that are there and is shown beside them.
    """
    routes = drifting_routes(steps=steps, tokens=tokens, drifts=drifts, seed=1)
    counts = [torch.bincount(route_.reshape(-1), minlength=_EXPERTS) for route_ in routes]
    alpha = max(float(one.max()) for one in counts) * _EXPERTS / (_K * tokens)
    case = Case(_EXPERTS, _K, tokens, "fp32", "zipf", True)
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}
    layers: dict[str, MoE] = {}
    plans = {
        "static": (Plan(alpha=alpha, rows=Rows.STATIC), None),
        "recompiled": (
            Plan(alpha=(1.25,) * _EXPERTS, rows=Rows.STATIC, overflow=Overflow.GROW),
            recompile(local_capacity(steps=2)),
        ),
        "exact": (Plan(), None),
    }
    for name, (plan, rule) in plans.items():
        made = problem(case)
        arena = Arena(keep_bytes=4 * 1024**3)
        first = our_layer(made).plan
        layer = MoE(_experts(made), _K, plan=plan.with_(products=first.products), policy=rule, arena=arena)
        now, taken = clock(), []
        for chosen in routes:
            started = now()
            layer.mix(made.x, chosen, made.weights).backward(made.towards)
            layer.step()
            taken.append(now() - started)
            for leaf in made.leaves:
                leaf.grad = None
        seconds[name], peaks[name], layers[name] = sum(taken[1:]), arena.peak_bytes, layer
    return {
        "alpha_that_drops_nothing": alpha,
        "steps": steps,
        "seconds": seconds,
        "workspace_peak_bytes": peaks,
        "recompilations": len(layers["recompiled"].events),
        "grown_steps": layers["recompiled"].growths,
        "speedup": seconds["static"] / seconds["recompiled"],
        "peak_ratio": peaks["recompiled"] / peaks["static"],
    }


def measure_drops(*, tokens: int, steps: int, drifts: int) -> dict[str, Any]:
    """Rows dropped at equal memory: capacities that sum to the same, equal for all or moved to the load."""
    from dynamoe.dispatch import capacities, group
    from dynamoe.policies import shared_capacity
    from dynamoe.recompile import Observation, next_score

    routes = drifting_routes(steps=steps, tokens=tokens, drifts=drifts, seed=2)
    dropped: dict[str, dict[str, int]] = {}
    for mean in (1.0, 1.25, 2.0):
        policy = local_capacity(total=mean * _EXPERTS)
        plan, score = Plan(alpha=(mean,) * _EXPERTS), None
        fixed = moving = 0
        for chosen in routes:
            fixed += group(chosen, _EXPERTS, capacities(mean, n=_EXPERTS, k=_K, batch=tokens)).dropped
            seen = group(chosen, _EXPERTS, capacities(plan.alpha, n=_EXPERTS, k=_K, batch=tokens))
            moving += seen.dropped
            score = next_score(score, Observation(tokens, _K, seen.counts, seen.dropped))
            change = policy(plan, score)
            plan = plan if change is None else change.plan
        dropped[str(mean)] = {"global": fixed, "local": moving, "assignments": steps * tokens * _K}
    assert sum(shared_capacity([2.0, 0.0], total=2.0)) == 2.0
    worst = min(one["global"] / max(1, one["local"]) for one in dropped.values())
    return {"by_mean_alpha": dropped, "ratio_min": worst, "ratio_at_1.25": _ratio(dropped["1.25"])}


def measure_swaps(*, swaps: int, tokens: int) -> dict[str, Any]:
    """Time that `step` takes where it puts a new plan in place, as a share of a training step; and the bits."""
    case = Case(8, 2, tokens, "fp32", "zipf", True)
    made = problem(case)
    plans = [Plan(alpha=2.0 + 0.01 * index, reserved_rows=tokens) for index in range(2)]

    def alter(plan: Plan, score: Any) -> Change:
        return Change(plans[score.step % 2], "bench")

    rule = Recompile(trigger=lambda plan, score: True, alter=alter, launch_ahead=1)
    layer = MoE(_experts(made), case.k, plan=plans[0], policy=rule)
    pauses: list[float] = []
    steps: list[float] = []
    while len(pauses) < swaps:
        started = time.perf_counter()
        run_once(made, lambda: layer.mix(made.x, made.chosen, made.weights))
        steps.append(time.perf_counter() - started)
        started = time.perf_counter()
        event = layer.step()
        if event is not None:
            pauses.append(time.perf_counter() - started)
    with torch.no_grad():
        swapped = layer.mix(made.x, made.chosen, made.weights)
        fresh = MoE(_experts(made), case.k, plan=layer.plan).mix(made.x, made.chosen, made.weights)
    step = statistics.median(steps)
    worst = sorted(pauses)[min(len(pauses) - 1, int(0.99 * len(pauses)))]
    return {
        "swaps": len(pauses),
        "step_seconds": step,
        "pause_seconds_p50": statistics.median(pauses),
        "pause_seconds_p99": worst,
        "pause_share_p99": worst / step,
        "bitwise_equal_to_fresh_plan": bool(torch.equal(swapped, fresh)),
    }


def measure_serving(*, rounds: int) -> dict[str, Any]:
    """Target 6: int8 and rearranged weights against transformers' grouped_mm in bfloat16, by batch size."""
    from mixture.contenders import ours, transformers_grouped
    from mixture.timing import compare, medians, ratio

    rows: list[dict[str, Any]] = []
    for tokens in (1, 8, 16, 64, 128, 512, 2048):
        narrow = problem(Case(_EXPERTS, _K, tokens, "bf16", "zipf", False))
        wide = problem(Case(_EXPERTS, _K, tokens, "fp32", "zipf", False))
        layers = {
            "transformers_bf16": transformers_grouped(narrow),
            "bf16": ours(narrow, precision=Precision.PACKED),
            "int8": ours(wide, precision=Precision.INT8),
        }
        taken = compare(narrow, layers, rounds=rounds)
        with torch.no_grad():
            exact = ours(wide)()
            error = float((layers["int8"]() - exact).norm() / exact.norm())
            narrow_error = float((layers["transformers_bf16"]().float() - exact).norm() / exact.norm())
        rows.append(
            {
                "tokens": tokens,
                "seconds": medians(taken),
                "int8_speedup": ratio(taken, "transformers_bf16", "int8"),
                "bf16_speedup": ratio(taken, "transformers_bf16", "bf16"),
                "int8_relative_error": error,
                "bf16_relative_error": narrow_error,
            }
        )
    small = [row["int8_speedup"] for row in rows if row["tokens"] <= 64]
    return {"by_tokens": rows, "int8_speedup_64": min(small)}


def _experts(made: Any) -> FfnExperts:
    experts = FfnExperts(made.case.experts, D_MODEL, D_FF, activation=Activation.RELU, gated=False, device="meta")
    experts.up, experts.down = made.up, made.down
    return experts


def _ratio(row: dict[str, int]) -> float:
    return row["global"] / max(1, row["local"])


__all__ = ["measure_drops", "measure_recompile", "measure_serving", "measure_swaps", "route"]
