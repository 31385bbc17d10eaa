"""Shares of the content categories in the coming plan window (paper section 3.3), from what was seen online."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.control.drift import forecast_drifted
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.fit import PLAN_WINDOW_SECONDS, Fit
from skyscraper.profile.forecast import Forecaster, examples, fine_tune, latest_input

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Outlook:
    """share [C] of the coming window; error: of the last window's forecast, None where it is too early to tell."""

    share: Floats
    error: float | None
    drifted: bool


def _pace(fit: Fit, day_seconds: float) -> tuple[float, float]:
    """Segment and window in seconds of a day of 24 hours, which the forecaster counts in."""
    stretch = SECONDS_PER_DAY / day_seconds
    return fit.segment_seconds * stretch, fit.window_seconds or PLAN_WINDOW_SECONDS


def outlook(fit: Fit, forecaster: Forecaster | None, labels: Integers, *, day_seconds: float) -> Outlook:
    """From the labels [T] of the segments seen online. With less than a day of them, what the profile knows counts for
    the rest."""
    count = fit.categories.count
    if len(labels) == 0:
        return Outlook(fit.categories.share, None, False)
    segment_seconds, window_seconds = _pace(fit, day_seconds)

    def told(past: Integers) -> Floats:
        if forecaster is not None:
            return np.asarray(forecaster.forecast(latest_input(past, count, segment_seconds))[0])
        window = past[-max(1, round(window_seconds / segment_seconds)) :]
        return np.asarray(np.bincount(window, minlength=count) / len(window))

    known = min(1.0, len(labels) * segment_seconds / SECONDS_PER_DAY)
    share = known * told(labels) + (1 - known) * fit.categories.share
    width = max(1, round(window_seconds / segment_seconds))
    if forecaster is None or len(labels) < 2 * width:
        return Outlook(share / share.sum(), None, False)
    seen = np.bincount(labels[-width:], minlength=count) / width
    error = float(np.abs(told(labels[:-width]) - seen).mean())
    return Outlook(share / share.sum(), error, forecast_drifted(error, forecaster.mae))


def refined(fit: Fit, labels: Integers, *, day_seconds: float, seed: int) -> Forecaster | None:
    """The profile's forecaster, fine-tuned on what was seen online."""
    if fit.forecaster is None:
        return None
    segment_seconds, window_seconds = _pace(fit, day_seconds)
    points = examples(labels, fit.categories.count, segment_seconds, window_seconds)
    return fine_tune(fit.forecaster, points, seed=seed)
