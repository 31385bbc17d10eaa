"""The offline phase: from what every configuration did on every segment to all that the online phase needs (section 3).

A pure function of a recording and a seed; running the configurations is `skyscraper.record`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.categorise import Categories, categorise, choose_categories, classify, discriminating
from skyscraper.profile.errors import ProfileError
from skyscraper.profile.forecast import Forecaster, learn_forecaster
from skyscraper.profile.place import Burst, OperatorWork, Placement, placements
from skyscraper.profile.predict import (
    Predictor,
    ResidualModel,
    fit_predictor,
    fit_residuals,
    out_of_fold,
    segment_features,
)
from skyscraper.profile.work import WorkModel, fit_work

Floats = NDArray[np.float64]

FEWEST_SEGMENTS = 60
PLAN_WINDOW_SECONDS = 2 * SECONDS_PER_DAY
# Enough for a plan of prices (see control/prices.py), and small enough for a message.
HISTORY_ROWS = 8_000
# Boxes, scores and labels of a busy segment's detections.
DETECTION_BYTES = 32_768.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Footage:
    """quality [T,K], work [T,K] core-seconds, seconds [T] (length), start_seconds [T] since a midnight, segment_bytes
    [T], features [T,F]; configurations [K] from the cheapest; operator_work [K,P] of operators, or neither;
    result_bytes [K,P] of what operators make of a segment of median length (detections' if left out)."""

    quality: Floats
    work: Floats
    seconds: Floats
    start_seconds: Floats
    segment_bytes: Floats
    features: Floats
    feature_names: tuple[str, ...]
    configurations: tuple[dict[str, str], ...]
    operators: tuple[str, ...] = ()
    operator_work: Floats | None = None
    result_bytes: Floats | None = None


@dataclass(frozen=True)
class History:
    """A sample of past segments for the planner: predicted, truth [T,K], seconds [T] since a midnight."""

    predicted: Floats
    truth: Floats
    seconds: Floats


@dataclass(frozen=True)
class Fit:
    """What was learned. K configurations, from the cheapest."""

    version: str
    seed: int
    segment_seconds: float
    segments: int
    feature_names: tuple[str, ...]
    configurations: tuple[dict[str, str], ...]
    mean_quality: Floats
    work: WorkModel
    operators: tuple[str, ...]
    operator_work: Floats
    placements: tuple[tuple[Placement, ...], ...]
    categories: Categories
    discriminating: int
    forecaster: Forecaster | None
    window_seconds: float
    predictor: Predictor
    look_ahead_predictor: Predictor
    relative_error: tuple[float, float]
    residuals: ResidualModel
    history: History


def fit(
    footage: Footage,
    *,
    seed: int,
    burst: Burst,
    stateless: Sequence[str],
    categories: int | None = None,
    window_seconds: float = PLAN_WINDOW_SECONDS,
    history_rows: int = HISTORY_ROWS,
    progress: Progress = lambda what, done, total: None,
) -> Fit:
    """Learn everything. Reproducible from the footage and the seed. `categories`: their number; chosen if None.
    `history_rows`: how much of the past the profile carries for the planner.

    Raises ProfileError where there is too little footage.
    """
    count, width = footage.quality.shape
    if count < FEWEST_SEGMENTS:
        raise ProfileError(f"{count} segments are too few to learn from; {FEWEST_SEGMENTS} are the least")
    if width < 2:
        raise ProfileError(
            "with one configuration there is nothing to choose; give the pipeline's knobs larger domains"
        )
    segment_seconds = float(np.median(footage.seconds))
    work = fit_work(footage.work, footage.seconds)
    estimate = work.estimate(segment_seconds)
    progress("categories", 0, 1)
    if categories is None:
        found = choose_categories(footage.quality, estimate, seed=seed)
    else:
        found = categorise(footage.quality, categories, seed=seed)
    teller = discriminating(found, footage.quality)
    progress("categories", 1, 1)
    labels = classify(found.centres, footage.quality[:, teller], teller)
    forecaster = learn_forecaster(labels, found.count, segment_seconds, window_seconds, seed=seed)
    progress("forecaster", 1, 1)
    first = int(footage.start_seconds[0] / segment_seconds)
    predictors, honest, errors = [], [], []
    for step, ahead in enumerate((False, True)):
        inputs = segment_features(footage.features, segment_seconds, first, ahead=ahead)
        held_back, size = out_of_fold(inputs, footage.quality, seed=seed)
        honest.append(held_back)
        predictors.append(fit_predictor(inputs, footage.quality, size=size, seed=seed))
        missed = footage.quality - honest[-1]
        errors.append(float(np.sqrt((missed**2).mean() / max(float(footage.quality.var(axis=0).mean()), 1e-12))))
        progress("predictors", step + 1, 2)
    rows = np.unique(np.linspace(0, count - 1, min(count, history_rows)).astype(int))
    names = footage.operators or ("work",)
    operator_work = footage.operator_work if footage.operator_work is not None else estimate[:, None]
    result_bytes = footage.result_bytes
    if result_bytes is None:
        result_bytes = np.full(operator_work.shape, DETECTION_BYTES)
    return Fit(
        version=_version(footage, seed, categories, window_seconds, history_rows),
        seed=seed,
        segment_seconds=segment_seconds,
        segments=count,
        feature_names=footage.feature_names,
        configurations=footage.configurations,
        mean_quality=footage.quality.mean(axis=0),
        work=work,
        operators=names,
        operator_work=operator_work,
        placements=tuple(
            tuple(placements(_operators(names, row, sizes, stateless), float(footage.segment_bytes.mean()), burst))
            for row, sizes in zip(operator_work, result_bytes, strict=True)
        ),
        categories=found,
        discriminating=teller,
        forecaster=forecaster,
        window_seconds=window_seconds,
        predictor=predictors[0],
        look_ahead_predictor=predictors[1],
        relative_error=(errors[0], errors[1]),
        residuals=fit_residuals(footage.quality - honest[0]),
        history=History(honest[0][rows], footage.quality[rows], footage.start_seconds[rows]),
    )


def _operators(names: Sequence[str], work: Floats, sizes: Floats, stateless: Sequence[str]) -> list[OperatorWork]:
    return [
        OperatorWork(name, float(seconds), name in stateless, float(size))
        for name, seconds, size in zip(names, work, sizes, strict=True)
    ]


def _version(footage: Footage, seed: int, categories: int | None, window_seconds: float, rows: int) -> str:
    digest = hashlib.sha256(repr((footage.configurations, seed, categories, window_seconds, rows)).encode())
    for array in (footage.quality, footage.work, footage.seconds, footage.features):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
