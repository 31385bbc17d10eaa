"""Learning a profile's predictors anew from what was seen online, where every segment shows one configuration only.

Configurations, work, categories and the residuals' model stay: what may have changed is how features tell quality.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyscraper.profile.errors import ProfileError
from skyscraper.profile.fit import Fit
from skyscraper.profile.impute import impute
from skyscraper.profile.predict import fit_predictor, input_count, out_of_fold, without_look_ahead

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Each of the three folds then has what an offline fit needs at least (`fit.FEWEST_SEGMENTS`).
FEWEST_SAMPLES = 180


@dataclass(frozen=True)
class Samples:
    """R segments in the order of time: seconds [R], inputs [R,G] with look-ahead, configuration [R], quality [R]."""

    seconds: Floats
    inputs: Floats
    configuration: Integers
    quality: Floats

    @property
    def count(self) -> int:
        return len(self.seconds)


def believed(fit: Fit, samples: Samples) -> tuple[Floats, Floats]:
    """[R,K] predicted by the fit without look-ahead, and [R,K] what all configurations are believed to have yielded."""
    predicted = fit.predictor.predict(without_look_ahead(samples.inputs, len(fit.feature_names)))
    return predicted, impute(predicted, samples.configuration, samples.quality, fit.residuals)


def width_of(fit: Fit) -> int:
    """G: how many inputs samples for this fit have."""
    return input_count(len(fit.feature_names), ahead=True)


def refit(fit: Fit, samples: Samples, *, seed: int) -> Fit:
    """A fit whose predictors learned from samples of recent segments. Reproducible from them and the seed.

    Raises ProfileError where they are too few.
    """
    if samples.count < FEWEST_SAMPLES:
        raise ProfileError(
            f"{samples.count} samples are too few to learn from; {FEWEST_SAMPLES} are the least: wait for more reports"
        )
    _, quality = believed(fit, samples)
    plain = without_look_ahead(samples.inputs, len(fit.feature_names))
    predictors, errors = [], []
    for inputs in (plain, samples.inputs):
        held_back, size = out_of_fold(inputs, quality, seed=seed)
        predictors.append(fit_predictor(inputs, quality, size=size, seed=seed))
        missed = quality - held_back
        errors.append(float(np.sqrt((missed**2).mean() / max(float(quality.var(axis=0).mean()), 1e-12))))
    digest = hashlib.sha256(f"{fit.version} {seed}".encode())
    for array in (samples.seconds, samples.inputs, samples.configuration, samples.quality):
        digest.update(np.ascontiguousarray(array).tobytes())
    return replace(
        fit,
        version=digest.hexdigest()[:16],
        seed=seed,
        segments=samples.count,
        predictor=predictors[0],
        look_ahead_predictor=predictors[1],
        relative_error=(errors[0], errors[1]),
    )
