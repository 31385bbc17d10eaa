"""Predicted qualities of segments, from their lines in the buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skyscraper.profile.fit import Fit
from skyscraper.profile.predict import AHEAD_SEGMENTS, inputs_at

from skyscraper_decoder.ahead import BEHIND_SEGMENTS, Seen

Floats = NDArray[np.float64]


def predict_one(
    fit: Fit, line: Seen, before: Sequence[Seen], behind: Sequence[Seen], day_seconds: float
) -> tuple[Floats, Floats]:
    """[K] qualities and [F] features of `line`, with its neighbours of the same stream; with look-ahead where enough
    of them wait behind it."""
    before = [one for one in before if one.stream_id == line.stream_id]
    behind = [one for one in behind if one.stream_id == line.stream_id]
    ahead = len(behind) >= AHEAD_SEGMENTS
    lines = [*before, line, *(behind if ahead else [])]
    features = _features(fit, lines)
    inputs = inputs_at(features, _days(lines, day_seconds), ahead=ahead)
    predictor = fit.look_ahead_predictor if ahead else fit.predictor
    at = len(before)
    return np.asarray(predictor.predict(inputs[at : at + 1])[0]), features[at]


def predict_new(fit: Fit, lines: Sequence[Seen], day_seconds: float) -> None:
    """Fill in the prediction (without look-ahead) of those lines of one stream that have none by this fit yet."""
    first = next((at for at, line in enumerate(lines) if line.predicted_by != fit.version), None)
    if first is None:
        return
    start = max(0, first - BEHIND_SEGMENTS)
    part = lines[start:]
    inputs = inputs_at(_features(fit, part), _days(part, day_seconds), ahead=False)
    for line, predicted in zip(lines[first:], fit.predictor.predict(inputs[first - start :]), strict=True):
        line.predicted, line.predicted_by = predicted, fit.version


def _features(fit: Fit, lines: Sequence[Seen]) -> Floats:
    """[T,F]; what a line does not tell is as it was in the line before it, or else in the next one that tells."""
    told = np.array([[line.features.get(name, np.nan) for name in fit.feature_names] for line in lines])
    for order in (slice(None), slice(None, None, -1)):
        values = told[order]
        rows = np.where(np.isnan(values), 0, np.arange(len(lines))[:, None])
        told[order] = np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)
    return np.asarray(np.nan_to_num(told))


def _days(lines: Sequence[Seen], day_seconds: float) -> Floats:
    return np.array([line.event_seconds for line in lines]) / day_seconds
