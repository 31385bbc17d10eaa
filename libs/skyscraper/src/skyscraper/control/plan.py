"""The paper's knob planner (section 4.1, equations 2 to 4; joint over streams, supplement equations 7 to 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.errors import Infeasible

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StreamForecast:
    """What the planner knows of one stream: q_kc [C,O] quality by category and option, r_c [C] share of each category
    in the coming window, work [O] core-seconds and usd [O] per segment; `weight` scales its quality against others."""

    quality: Floats
    share: Floats
    work: Floats
    usd: Floats
    weight: float = 1.0


@dataclass(frozen=True)
class Plan:
    """α [C,O] per stream (each row sums to 1), and the dual prices of work and dollars."""

    alpha: tuple[Floats, ...]
    work_price: float
    usd_price: float
    expected_quality: float


def plan(streams: Sequence[StreamForecast], *, work_core_seconds: float, usd: float) -> Plan:
    """Maximise Σ_v Σ_c Σ_k α_vkc r_vc q_vkc subject to Σ α r work ≤ work, Σ α r usd ≤ usd, Σ_k α_vkc = 1.

    Both budgets are per round: one segment of every stream. Raises Infeasible where the cheapest do not fit.
    """
    # A second to import, which services that only read plans do without.
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    if not streams:
        return Plan((), 0.0, 0.0, 0.0)
    floor = sum(float(stream.work[stream.usd == 0].min()) for stream in streams)
    if floor > work_core_seconds:
        raise Infeasible(
            f"the cheapest configurations of {len(streams)} streams take {floor:.4g} core-seconds per segment, and the "
            f"pool has {work_core_seconds:.4g}: add cores, or take streams away"
        )
    cost, work, dollars, row, sizes = [], [], [], [], []
    rows = 0
    for stream in streams:
        categories, options = stream.quality.shape
        share = np.repeat(stream.share, options)
        cost.append(-stream.weight * share * stream.quality.ravel())
        work.append(share * np.tile(stream.work, categories))
        dollars.append(share * np.tile(stream.usd, categories))
        row.append(rows + np.repeat(np.arange(categories), options))
        rows += categories
        sizes.append((categories, options))
    variables = sum(categories * options for categories, options in sizes)
    budgets = csr_matrix(np.stack([np.concatenate(work), np.concatenate(dollars)]))
    one = csr_matrix((np.ones(variables), (np.concatenate(row), np.arange(variables))), shape=(rows, variables))
    found = linprog(
        np.concatenate(cost),
        A_ub=budgets,
        b_ub=[work_core_seconds, max(usd, 0.0)],
        A_eq=one,
        b_eq=np.ones(rows),
        bounds=(0, 1),
        method="highs",
    )
    if not found.success:
        raise Infeasible(f"no plan: {found.message}")
    alpha, start = [], 0
    for categories, options in sizes:
        stop = start + categories * options
        alpha.append(np.asarray(found.x[start:stop]).reshape(categories, options))
        start = stop
    prices = -np.asarray(found.ineqlin.marginals)
    return Plan(tuple(alpha), float(prices[0]), float(prices[1]), float(-found.fun))
