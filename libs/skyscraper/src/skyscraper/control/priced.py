"""The choice of a configuration and a placement by shadow prices: `argmax q̂ − λ·work − μ·usd`.

Compiled functions over plain arrays; the decoder and the simulator call the same ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.lookahead import Table, foresee
from skyscraper.control.prices import worth_at

Floats = NDArray[np.float64]

# The backlog's newest content is looked at so often while a slot passes.
_LOOKS_PER_SLOT = 5
# A tenth of the day's dollars spent too early makes a dollar half as dear again.
_USD_GAIN = 4.0


class Priced(NamedTuple):
    """Look-ahead and shadow prices. T rounds, N streams, K configurations, O options, L lags, S slots of a day."""

    predicted: Floats  # [2,T,N,K] without and with look-ahead features
    table: Table
    price: Floats  # [L] λ by lag, as foreseen now
    value: Floats  # [D,P] of all rounds' slots, as predicted; looked at only where the content has arrived
    drift: Floats  # [D,P] seconds of lag that a slot adds
    need: Floats  # [T+1] running sum of the rounds' need
    first_need: float  # of the content before round 0
    mu: Floats  # [2] price of a dollar: as planned, and now
    usd_curve: Floats  # [S+1]
    usd_per_day: float
    first_round: int  # rounds since midnight before round 0
    slot_segments: int
    segment_seconds: float
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


def usd_price_now(planned: float, *, spent_share: float, due_share: float) -> float:
    """μ as planned, corrected by what was spent so far of the day's dollars against what the plan had spent by now."""
    return float(planned * np.exp(_USD_GAIN * (spent_share - due_share)))


@njit
def prepare_priced(state: Priced, t: int, lag: float, budget: float) -> None:  # pragma: no cover - compiled
    """Before round t: look into the backlog again, and correct the price of a dollar by what was spent so far."""
    if t % max(1, state.slot_segments // _LOOKS_PER_SLOT) != 0:
        return
    rounds = state.need.shape[0] - 1
    head = min(t + int(lag / state.segment_seconds), rounds)
    newest = max(0, head - state.slot_segments)
    need = state.first_need if head == 0 else (state.need[head] - state.need[newest]) / (head - newest)
    start = (t + state.first_round) // state.slot_segments
    # A head short of the slot's end leaves it unknown; without the backlog's predictions nothing is known.
    stop = (head + state.first_round) // state.slot_segments if state.ahead_seconds < np.inf else start
    foresee(state.table, state.value, state.drift, start, stop, need, state.price)
    if state.usd_per_day > 0:
        slot = start % (state.usd_curve.shape[0] - 1)
        early = 1 - budget / state.usd_per_day - state.usd_curve[slot]
        state.mu[1] = state.mu[0] * np.exp(_USD_GAIN * early)


@njit(cache=True)
def best_option(  # pragma: no cover - compiled
    quality: Floats,
    configuration: NDArray[np.int64],
    work: Floats,
    usd: Floats,
    scale: float,
    work_price: float,
    usd_price: float,
    slack: float,
    budget: float,
) -> int:
    """`argmax scale·q̂ − λ·work − μ·usd` over the options [O] that guard and budget allow; option 0 always is.

    quality [K] as believed; negative beliefs count as 0.
    """
    best, arg = -1e300, 0
    for option in range(work.shape[0]):
        if option > 0 and (work[option] > slack or usd[option] > budget):
            continue
        value = max(quality[configuration[option]], 0.0) * scale
        score = value - work_price * work[option] - usd_price * usd[option]
        if score > best:
            best, arg = score, option
    return arg


@njit(cache=True)
def learn_residual(  # pragma: no cover - compiled
    residual: Floats, spread: Floats, k: int, missed: float, persistence: float, covariance: Floats, noise: Floats
) -> None:
    """One step of the Kalman filter over the residuals of all configurations, from one observed: `missed` is the
    quality that configuration k reported less its prediction without residual. Writes residual [K], spread [K,K]."""
    count = residual.shape[0]
    total = spread[k, k] + noise[k]
    if total > 0:
        gain = spread[:, k] / total
        row = spread[k].copy()
        error = missed - residual[k]
        for i in range(count):
            residual[i] += gain[i] * error
            for j in range(count):
                spread[i, j] -= gain[i] * row[j]
    for i in range(count):
        residual[i] *= persistence
        for j in range(count):
            spread[i, j] = persistence**2 * spread[i, j] + (1 - persistence**2) * covariance[i, j]


@njit
def decide_priced(  # pragma: no cover - compiled
    state: Priced, t: int, v: int, lag: float, slack: float, budget: float
) -> int:
    row = state.predicted[1 if lag >= state.ahead_seconds else 0, t, v]
    return best_option(
        row + state.residual[v],
        state.configuration,
        state.work[v],
        state.usd[v],
        state.weight[v],
        worth_at(lag, state.table.lags, state.price),
        state.mu[1],
        slack,
        budget,
    )


@njit
def observe_priced(  # pragma: no cover - compiled
    state: Priced, t: int, v: int, option: int, quality: float
) -> float:
    k = state.configuration[option]
    learn_residual(
        state.residual[v],
        state.spread[v],
        k,
        quality - state.predicted[0, t, v, k],
        state.persistence[v],
        state.covariance[v],
        state.noise[v],
    )
    return 0.0
