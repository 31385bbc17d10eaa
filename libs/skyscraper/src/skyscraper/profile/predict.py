"""What a segment will yield under every configuration, told before it is processed.

Features of the segment and of its neighbours in the backlog go into gradient-boosted trees (scikit-learn), one per
principal component of the quality vectors; what the trees miss changes slowly, so a Kalman filter over the residuals
of all configurations learns it from the one quality that each segment reports. The paper (section 4.2) takes the last
segment's category for the next; its authors call that its dominant error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.trees import SIZES, Forest, Size, fit_forest

Floats = NDArray[np.float64]

# Means over so many segments before (and, where the backlog holds them, behind) a segment: seconds to minutes.
_WINDOWS = (4, 16, 64)
# Segments that must wait behind one before its look-ahead features exist.
AHEAD_SEGMENTS = 8
# Means over so many segments before and behind one, where the backlog holds them.
_REACHES = (1, 2, 4, AHEAD_SEGMENTS)
# Segments before one that its inputs depend on, itself included.
MEMORY_SEGMENTS = _WINDOWS[-1]
# Components beyond this share of variance are noise of the measurement.
_VARIANCE = 0.995
_MAX_COMPONENTS = 4
_MAX_TRAINING_ROWS = 30_000
_FOLDS = 3


def segment_features(features: Floats, segment_seconds: float, first: int, *, ahead: bool) -> Floats:
    """[T, G] predictor inputs: the segment's own features, trailing means, the hour; with `ahead` also centred ones.

    `first` is the index of features[0] in the stream, for the hour.
    """
    days: Floats = np.asarray((first + np.arange(len(features))) * segment_seconds / SECONDS_PER_DAY, dtype=np.float64)
    return inputs_at(features, days, ahead=ahead)


def inputs_at(features: Floats, days: Floats, *, ahead: bool) -> Floats:
    """The same for segments at `days` [T] (whole ones do not count: 0.5 is noon)."""
    count = len(features)
    columns = [features]
    sums = np.concatenate([np.zeros((1, features.shape[1])), np.cumsum(features, axis=0)])
    rows = np.arange(count)
    for window in _WINDOWS:
        start = np.maximum(rows + 1 - window, 0)
        columns.append((sums[rows + 1] - sums[start]) / (rows + 1 - start)[:, None])
    if ahead:
        for reach in _REACHES:
            start, stop = np.maximum(rows - reach, 0), np.minimum(rows + reach + 1, count)
            columns.append((sums[stop] - sums[start]) / (stop - start)[:, None])
    angle = 2 * np.pi * days
    columns.append(np.stack([np.sin(angle), np.cos(angle)], axis=1))
    return np.concatenate(columns, axis=1)


def input_count(features: int, *, ahead: bool) -> int:
    """G for F features."""
    return features * (1 + len(_WINDOWS) + (len(_REACHES) if ahead else 0)) + 2


def without_look_ahead(inputs: Floats, features: int) -> Floats:
    """[T,G] as `segment_features` makes them without look-ahead, from those with it."""
    plain = features * (1 + len(_WINDOWS))
    return np.concatenate([inputs[:, :plain], inputs[:, -2:]], axis=1)


@dataclass(frozen=True)
class ResidualModel:
    """Residuals as a first-order process: persistence φ per segment, stationary covariance [K,K], noise [K]."""

    persistence: float
    covariance: Floats
    noise: Floats


@dataclass(frozen=True)
class Predictor:
    """Quality of every configuration from features; `ahead` whether look-ahead features are expected."""

    mean: Floats
    components: Floats
    models: tuple[Forest, ...]

    def predict(self, inputs: Floats) -> Floats:
        """[T,K] from [T,G]; never below 0."""
        if not self.models:
            return np.tile(self.mean, (len(inputs), 1))
        scores = np.stack([model.predict(inputs) for model in self.models], axis=1)
        predicted: Floats = np.maximum(self.mean + scores @ self.components, 0.0)
        return predicted


def fit_predictor(inputs: Floats, quality: Floats, *, size: Size, seed: int) -> Predictor:
    """Fit on [T,G] and [T,K]. Reproducible from the seed."""
    mean = quality.mean(axis=0)
    centred = quality - mean
    _, strengths, basis = np.linalg.svd(centred[:: max(1, len(centred) // 20_000)], full_matrices=False)
    power = np.cumsum(strengths**2)
    if power[-1] <= 0:
        return Predictor(mean, basis[:0], ())
    count = min(_MAX_COMPONENTS, int(np.searchsorted(power / power[-1], _VARIANCE)) + 1)
    components = basis[:count]
    scores = centred @ components.T
    rows = np.arange(len(inputs))
    if len(rows) > _MAX_TRAINING_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_TRAINING_ROWS, replace=False))
    models = tuple(fit_forest(inputs[rows], scores[rows, index], size=size, seed=seed) for index in range(count))
    return Predictor(mean, components, models)


def out_of_fold(inputs: Floats, quality: Floats, *, seed: int) -> tuple[Floats, Size]:
    """[T,K] predictions of each third of time by a predictor that saw only the others: honest residuals.

    Also the size of forest that did best at it, which made these predictions.
    """
    edges = np.linspace(0, len(inputs), _FOLDS + 1).astype(int)
    found = []
    for size in SIZES:
        predicted = np.empty_like(quality)
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            rest = np.r_[0:start, stop : len(inputs)]
            fitted = fit_predictor(inputs[rest], quality[rest], size=size, seed=seed)
            predicted[start:stop] = fitted.predict(inputs[start:stop])
        found.append((float(((quality - predicted) ** 2).mean()), predicted, size))
    _, predicted, size = min(found, key=lambda one: one[0])
    return predicted, size


def fit_residuals(residuals: Floats) -> ResidualModel:
    """From [T,K] residuals: lag-1 and lag-4 covariances give the persistence; what they do not explain is noise."""
    centred = residuals - residuals.mean(axis=0)
    rows = len(centred)

    def lagged(lag: int) -> Floats:
        product = centred[:-lag].T @ centred[lag:] / (rows - lag)
        symmetric: Floats = (product + product.T) / 2
        return symmetric

    total = np.diag(centred.T @ centred / rows)
    one, four = lagged(1), lagged(4)
    ratio = np.trace(four) / np.trace(one) if np.trace(one) > 0 else 0.0
    persistence = float(np.clip(max(ratio, 0.0) ** (1 / 3), 0.0, 0.999))
    values, vectors = np.linalg.eigh(one / max(persistence, 0.05))
    covariance = (vectors * np.maximum(values, 0.0)) @ vectors.T
    noise = np.maximum(total - np.diag(covariance), 1e-3 * total + 1e-12)
    return ResidualModel(persistence, covariance, noise)
