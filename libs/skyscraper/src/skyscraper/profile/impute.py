"""What configurations that did not run would have yielded, given what the one that ran did.

A segment reports the quality of one configuration. The residuals of all of them were seen together in training, so
their covariance tells how a surprise in one carries over to the others: the gain of the Kalman filter that decides
online (`control/priced.observe_priced`), from a state in which nothing is known but the covariance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyscraper.profile.predict import ResidualModel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def impute(predicted: Floats, configuration: Integers, observed: Floats, residuals: ResidualModel) -> Floats:
    """[R,K] conditional expectation of all qualities from predicted [R,K] and the observed [R] of configuration [R].

    The configuration that ran keeps what was observed; none is below 0.
    """
    total = np.diag(residuals.covariance) + residuals.noise
    # [K,K]: row k is what a unit of surprise in k says of all.
    gain = residuals.covariance / np.where(total > 0, total, 1.0)[:, None]
    rows = np.arange(len(predicted))
    error = observed - predicted[rows, configuration]
    told = np.maximum(predicted + gain[configuration] * error[:, None], 0.0)
    told[rows, configuration] = observed
    return told
