"""How each policy decides, as compiled functions over plain arrays, and what it learns from a report."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.switcher import category, fall_back, pick

Floats = NDArray[np.float64]


class Ladder(NamedTuple):
    """Options in a fixed order of preference per stream. order [N,O]; value unused beyond it."""

    order: NDArray[np.int64]
    work: Floats  # [N,O]


@njit
def decide_ladder(state, t, v, lag, slack, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    """The first of the preferred options that the guard allows (static, VideoStorm)."""
    for index in range(state.order.shape[1]):
        option = state.order[v, index]
        if option >= 0 and state.work[v, option] <= slack:
            return option
    return 0


@njit
def observe_nothing(state, t, v, option, quality):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
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
def decide_profiled(state, t, v, lag, slack, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    if t % state.period == 0:
        best = state.quality[t, v].max()
        for k in range(state.quality.shape[2]):
            if state.quality[t, v, k] >= state.target * best:
                state.current[v] = k
                break
    return state.current[v]


@njit
def observe_profiled(state, t, v, option, quality):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
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


@njit
def decide_planned(state, t, v, lag, slack, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    c = state.last[v]
    wanted = pick(state.alpha[v, c], state.used[v, c])
    return fall_back(wanted, state.work[v], state.usd[v], state.value[v, c], slack, budget)


@njit
def observe_planned(state, t, v, option, quality):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    c = category(state.centres[v], quality, state.configuration[option])
    state.used[v, state.last[v], option] += 1.0
    state.last[v] = c
    return 0.0


class Priced(NamedTuple):
    """Look-ahead and shadow prices. Two predictions: without and with look-ahead features."""

    predicted: Floats  # [2,T,N,K]
    prices: Floats  # [S,L] λ by slot of the day and lag
    lags: Floats  # [L]
    mu: Floats  # [1] price of a dollar
    slot_segments: int
    ahead_seconds: float
    work: Floats  # [N,O]
    usd: Floats  # [N,O]
    configuration: NDArray[np.int64]  # [O]
    residual: Floats  # [N,K] what the prediction misses, as believed now
    spread: Floats  # [N,K,K] its covariance
    persistence: Floats  # [N]
    covariance: Floats  # [N,K,K]
    noise: Floats  # [N,K]
    weight: Floats  # [N]


@njit
def interpolate(x: float, xs: Floats, ys: Floats) -> float:  # pragma: no cover - compiled
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    high = np.searchsorted(xs, x)
    part = (x - xs[high - 1]) / (xs[high] - xs[high - 1])
    return ys[high - 1] * (1 - part) + ys[high] * part


@njit
def decide_priced(state, t, v, lag, slack, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    slot = (t // state.slot_segments) % state.prices.shape[0]
    price = interpolate(lag, state.lags, state.prices[slot])
    row = state.predicted[1 if lag >= state.ahead_seconds else 0, t, v]
    best, arg = -1e300, 0
    for option in range(state.work.shape[1]):
        if option > 0 and (state.work[v, option] > slack or state.usd[v, option] > budget):
            continue
        k = state.configuration[option]
        value = max(row[k] + state.residual[v, k], 0.0) * state.weight[v]
        score = value - price * state.work[v, option] - state.mu[0] * state.usd[v, option]
        if score > best:
            best, arg = score, option
    return arg


@njit
def observe_priced(state, t, v, option, quality):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # pragma: no cover
    """One step of the Kalman filter over the residuals of all configurations, from one observed."""
    k = state.configuration[option]
    phi = state.persistence[v]
    spread = state.spread[v]
    residual = state.residual[v]
    count = residual.shape[0]
    error = quality - state.predicted[0, t, v, k] - residual[k]
    total = spread[k, k] + state.noise[v, k]
    if total > 0:
        gain = spread[:, k] / total
        row = spread[k].copy()
        for i in range(count):
            residual[i] += gain[i] * error
            for j in range(count):
                spread[i, j] -= gain[i] * row[j]
    for i in range(count):
        residual[i] *= phi
        for j in range(count):
            spread[i, j] = phi * phi * spread[i, j] + (1 - phi * phi) * state.covariance[v, i, j]
    return 0.0
