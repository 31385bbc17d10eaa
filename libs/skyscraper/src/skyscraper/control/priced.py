"""The choice of a configuration and a placement by shadow prices: `argmax q̂ − λ·work − μ·usd`.

Compiled functions over plain arrays; the decoder and the simulator call the same ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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


@njit(cache=True)
def interpolate(x: float, xs: Floats, ys: Floats) -> float:  # pragma: no cover - compiled
    """ys over ascending xs at x, flat beyond the ends."""
    if x <= xs[0]:
        return float(ys[0])
    if x >= xs[-1]:
        return float(ys[-1])
    high = np.searchsorted(xs, x)
    part = (x - xs[high - 1]) / (xs[high] - xs[high - 1])
    return float(ys[high - 1] * (1 - part) + ys[high] * part)


@njit
def decide_priced(  # pragma: no cover - compiled
    state: Priced, t: int, v: int, lag: float, slack: float, budget: float
) -> int:
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
def observe_priced(  # pragma: no cover - compiled
    state: Priced, t: int, v: int, option: int, quality: float
) -> float:
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
