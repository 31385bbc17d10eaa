"""What policies learn from a trace's first part, with the offline phase's own functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.categorise import Categories, categorise, classify, discriminating
from skyscraper.profile.forecast import Forecaster, learn_forecaster
from skyscraper.profile.predict import ResidualModel, fit_predictor, fit_residuals, out_of_fold, segment_features

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What the ablations turn. `clairvoyant`: a segment's true qualities are known as soon as it has arrived."""

    categories: int = 4
    plan_window_seconds: float = 2 * SECONDS_PER_DAY
    look_ahead: bool = True
    residuals: bool = True
    forecast: bool = True
    clairvoyant: bool = False
    seed: int = 0


@dataclass(frozen=True)
class ContentModel:
    """What the paper's controller knows of a stream: categories, the training segments' labels [T], a forecaster."""

    categories: Categories
    labels: Integers
    forecaster: Forecaster | None


@dataclass(frozen=True)
class QualityModel:
    """What prices know of a stream: predictions [2,T,K] of the test segments, without and with look-ahead; honest [T,K]
    ones of the training segments; what predictions miss."""

    predictions: Floats
    honest: Floats
    residuals: ResidualModel


def learn_content(quality: Floats, segment_seconds: float, settings: Settings) -> ContentModel:
    """From the training segments' quality [T,K]."""
    categories = categorise(quality, settings.categories, seed=settings.seed)
    teller = discriminating(categories, quality)
    labels = classify(categories.centres, quality[:, teller], teller)
    window = settings.plan_window_seconds
    forecaster = learn_forecaster(labels, categories.count, segment_seconds, window, seed=settings.seed)
    return ContentModel(categories, labels, forecaster)


def learn_quality(
    quality: Floats, features: Floats, split: int, segment_seconds: float, settings: Settings
) -> QualityModel:
    """From quality [T,K] of the first `split` segments and features [T,F] of all."""
    learned = quality[:split]
    if settings.clairvoyant:
        width = quality.shape[1]
        nothing_missed = ResidualModel(0.0, np.zeros((width, width)), np.ones(width))
        return QualityModel(np.stack([quality[split:]] * 2), learned, nothing_missed)
    plain = segment_features(features, segment_seconds, 0, ahead=False)
    honest, size = out_of_fold(plain[:split], learned, seed=settings.seed)

    def predicted(inputs: Floats) -> Floats:
        return fit_predictor(inputs[:split], learned, size=size, seed=settings.seed).predict(inputs[split:])

    without = predicted(plain)
    ahead = without
    if settings.look_ahead:
        ahead = predicted(segment_features(features, segment_seconds, 0, ahead=True))
    residuals = fit_residuals(learned - honest)
    if not settings.residuals:
        residuals = replace(residuals, covariance=np.zeros_like(residuals.covariance))
    return QualityModel(np.stack([without, ahead]), honest, residuals)
