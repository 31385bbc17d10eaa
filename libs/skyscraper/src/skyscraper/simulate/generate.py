"""Seeded content processes: traces of streams that nobody had to record.

A street's load (objects in view) follows a day curve and a process of its own; the fuller it is, the harder, and the
more a dear configuration is worth. Quality is load times accuracy, so hard content also weighs more, as in the paper's
workloads (section 5.1). The predictor sees load and hardness through noise, as packet headers show them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.prices import BURST_USD_PER_CORE_SECOND, ROUND_TRIP_SECONDS
from skyscraper.simulate.trace import Trace, make_trace

Floats = NDArray[np.float64]

# Content stays alike for so long (paper section 2.1's observation of its streams).
_REGIME_SECONDS = (24.0, 43.0)
# Work of the cheapest and the dearest, as multiples of real time on one core.
_CHEAPEST, _DEAREST = 0.08, 5.0
# Correlation of about 0.8 between what headers show and the load: what packet features reach on the street camera.
_FEATURE_NOISE = 0.25
_QUALITY_NOISE = 0.04


def generate(
    kind: str,
    *,
    days: float,
    seed: int,
    segment_seconds: float = 4.0,
    configurations: int = 8,
    feature_noise: float = 1.0,
) -> Trace:
    """A trace of the given kind (see KINDS). Reproducible from its arguments. Raises TraceError."""
    if kind not in KINDS:
        raise TraceError(f"content {kind!r} is not known; choose from {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    count = int(days * SECONDS_PER_DAY / segment_seconds)
    if count < 2 or configurations < 2:
        raise TraceError(f"{days:g} days and {configurations} configurations make no trace; both are too few")
    load = KINDS[kind](rng, count, segment_seconds)
    hardness = np.clip(0.6 * load + _slow(rng, count, 600 / segment_seconds) * 0.15, 0, 1)
    floor = np.linspace(0.3, 1.0, configurations) ** 0.8
    accuracy = 1 - (1 - floor) * hardness[:, None] ** 0.8
    quality = load[:, None] * accuracy * (1 + _QUALITY_NOISE * rng.normal(size=accuracy.shape).clip(-3, 3))
    work = np.geomspace(_CHEAPEST, _DEAREST, configurations) * segment_seconds
    seen = feature_noise * _FEATURE_NOISE
    features = np.stack(
        [
            load * np.exp(seen * rng.normal(size=count)),
            hardness + seen * rng.normal(size=count),
            rng.normal(size=count),
        ],
        axis=1,
    )
    return make_trace(
        f"{kind}-{seed}",
        quality=quality,
        work_core_seconds=work,
        segment_bytes=120_000 * segment_seconds * (0.5 + load),
        segment_seconds=segment_seconds,
        features=features,
        burst_usd=work * BURST_USD_PER_CORE_SECOND,
        burst_seconds=work + ROUND_TRIP_SECONDS,
    )


def _slow(rng: np.random.Generator, count: int, steps: float) -> Floats:
    """A stationary first-order process of unit variance that forgets within `steps` segments."""
    from scipy.signal import lfilter

    phi = float(np.exp(-1 / steps))
    noise = rng.normal(size=count) * np.sqrt(1 - phi * phi)
    noise[0] = rng.normal()
    values: Floats = lfilter([1.0], [1.0, -phi], noise)
    return values


def _hours(count: int, segment_seconds: float) -> Floats:
    hours: Floats = np.arange(count) * segment_seconds / 3600 % 24
    return hours


def _bump(hours: Floats, centre: float, width: float) -> Floats:
    away = np.abs(hours - centre)
    bump: Floats = np.exp(-((np.minimum(away, 24 - away) / width) ** 2))
    return bump


def _regimes(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    """Levels that hold for a regime each."""
    lengths = rng.uniform(*_REGIME_SECONDS, size=int(count * segment_seconds / _REGIME_SECONDS[0]) + 1)
    index = np.searchsorted(np.cumsum(lengths), np.arange(count) * segment_seconds, side="right")
    levels: Floats = rng.gamma(2.0, 0.5, size=len(lengths) + 1)[index]
    return levels


def _day(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    hours = _hours(count, segment_seconds)
    base = 0.12 + 0.7 * _bump(hours, 8.5, 1.5) + 0.9 * _bump(hours, 17.5, 2.0) + 0.3 * _bump(hours, 13, 3)
    days = int(hours.size * segment_seconds / SECONDS_PER_DAY) + 1
    daily = rng.lognormal(0, 0.1, days)[(np.arange(count) * segment_seconds // SECONDS_PER_DAY).astype(int)]
    load: Floats = base * daily
    return load


def _diurnal(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    load: Floats = _day(rng, count, segment_seconds) * np.exp(0.4 * _slow(rng, count, 60 / segment_seconds))
    return load


def _street_regimes(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    return _day(rng, count, segment_seconds) * _regimes(rng, count, segment_seconds)


def _bursts(
    rng: np.random.Generator, count: int, segment_seconds: float, *, per_day: float, seconds: float, height: float
) -> Floats:
    """Bursts at random times, of exponential length, over a quiet street."""
    days = count * segment_seconds / SECONDS_PER_DAY
    starts = rng.uniform(0, count, rng.poisson(per_day * days))
    lengths = rng.exponential(seconds / segment_seconds, starts.size)
    steps = np.zeros(count + 1)
    np.add.at(steps, starts.astype(int), 1.0)
    np.add.at(steps, np.minimum(starts + lengths, count).astype(int), -1.0)
    quiet = 0.15 * np.exp(0.4 * _slow(rng, count, 120 / segment_seconds))
    load: Floats = quiet + height * np.minimum(np.cumsum(steps[:count]), 2) * rng.lognormal(0, 0.15, count)
    return load


def _bursty(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    return _bursts(rng, count, segment_seconds, per_day=60, seconds=300, height=0.8)


def _mosei_high(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    """Many short, high spikes (paper section 5.1, MOSEI-HIGH)."""
    return _bursts(rng, count, segment_seconds, per_day=400, seconds=40, height=1.2)


def _mosei_long(rng: np.random.Generator, count: int, segment_seconds: float) -> Floats:
    """Few long peaks (MOSEI-LONG)."""
    return _bursts(rng, count, segment_seconds, per_day=4, seconds=5400, height=0.9)


KINDS: dict[str, Callable[[np.random.Generator, int, float], Floats]] = {
    "diurnal": _diurnal,
    "regimes": _street_regimes,
    "bursty": _bursty,
    "mosei-high": _mosei_high,
    "mosei-long": _mosei_long,
}
