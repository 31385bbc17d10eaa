"""How the baselines decide, as compiled functions over plain arrays, and what they learn from a report.

Every policy is three functions: `prepare(state, t, lag, budget)` once before the segments of round t;
`decide(state, t, v, lag, slack, budget)` gives the option for segment t of stream v; `observe(state, t, v, option,
quality)` takes the report and gives core-seconds spent beside it (profiling).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.switcher import category, fall_back, pick

Floats = NDArray[np.float64]


@njit
def prepare_nothing(state: Any, t: int, lag: float, budget: float) -> None:  # pragma: no cover - compiled
    pass


class Ladder(NamedTuple):
    """Options in a fixed order of preference per stream. order [N,O]; value unused beyond it."""

    order: NDArray[np.int64]
    work: Floats  # [N,O]


@njit
def decide_ladder(  # pragma: no cover - compiled
    state: Ladder, t: int, v: int, lag: float, slack: float, budget: float
) -> int:
    """The first of the preferred options that the guard allows (static, VideoStorm)."""
    for index in range(state.order.shape[1]):
        option = state.order[v, index]
        if option >= 0 and state.work[v, option] <= slack:
            return int(option)
    return 0


@njit
def observe_nothing(  # pragma: no cover - compiled
    state: Any, t: int, v: int, option: int, quality: float
) -> float:
    return 0.0


class Profiled(NamedTuple):
    """Chameleon*: every `period` segments all configurations run on one segment; the cheapest within `target` of the
    best is used until the next. It has no guard."""

    quality: Floats  # [T,N,K] truth, which profiling reveals
    work: Floats  # [N,K]
    current: NDArray[np.int64]  # [N]
    period: int
    target: float


@njit
def decide_profiled(  # pragma: no cover - compiled
    state: Profiled, t: int, v: int, lag: float, slack: float, budget: float
) -> int:
    if t % state.period == 0:
        best = state.quality[t, v].max()
        for k in range(state.quality.shape[2]):
            if state.quality[t, v, k] >= state.target * best:
                state.current[v] = k
                break
    return int(state.current[v])


@njit
def observe_profiled(  # pragma: no cover - compiled
    state: Profiled, t: int, v: int, option: int, quality: float
) -> float:
    return state.work[v].sum() - state.work[v, option] if t % state.period == 0 else 0.0


class Planned(NamedTuple):
    """The paper's: plan α, what was used of it, categories' centres, and the last report. N streams, C categories."""

    alpha: Floats  # [N,C,O]
    used: Floats  # [N,C,O]
    centres: Floats  # [N,C,K]
    value: Floats  # [N,C,O] quality of options by category
    work: Floats  # [N,O]
    usd: Floats  # [N,O]
    configuration: NDArray[np.int64]  # [O]
    last: NDArray[np.int64]  # [N] category of the last segment
    labels: NDArray[np.int64]  # [T,N] category of every segment so far


@njit
def decide_planned(  # pragma: no cover - compiled
    state: Planned, t: int, v: int, lag: float, slack: float, budget: float
) -> int:
    c = state.last[v]
    wanted = pick(state.alpha[v, c], state.used[v, c])
    return fall_back(wanted, state.work[v], state.usd[v], state.value[v, c], slack, budget)


@njit
def observe_planned(  # pragma: no cover - compiled
    state: Planned, t: int, v: int, option: int, quality: float
) -> float:
    c = category(state.centres[v], quality, state.configuration[option])
    state.used[v, state.last[v], option] += 1.0
    state.last[v] = c
    state.labels[t, v] = c
    return 0.0
