"""One segment's choice, as the decoder makes it: the simulator's own functions, called for one stream at a time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.priced import best_option, learn_residual
from skyscraper.control.prices import worth_at
from skyscraper.control.switcher import category, fall_back, pick
from skyscraper.control.work import recalibrated

Floats = NDArray[np.float64]

_UNLIMITED = float("inf")


class Rule(Enum):
    """What decided."""

    FIXED = "fixed"
    PRICED = "priced"
    PLANNED = "planned"
    GUARDED = "guarded"
    FLOOR = "floor"


@dataclass(frozen=True)
class Situation:
    """What a choice rests on. K configurations, from the cheapest.

    quality [K] as believed, in the pipeline's unit; work [K] core-seconds as estimated; work_price in normalised
    quality per core-second; value_scale normalised quality per unit; slack_core_seconds: the most the guard allows.
    """

    quality: Floats
    work: Floats
    work_price: float
    value_scale: float
    slack_core_seconds: float


@dataclass(frozen=True)
class Choice:
    configuration: int
    rule: Rule


@dataclass(frozen=True)
class ResidualNoise:
    """How what predictions miss moves: persistence per segment, covariance [K,K], noise [K] of one report."""

    persistence: float
    covariance: Floats
    noise: Floats


class Belief:
    """What the predictions of one stream miss, as believed now; and how often each configuration was used.

    residual [K], spread [K,K]; used [C,K] counts by the paper's content category.
    """

    def __init__(self, noise: ResidualNoise, categories: int) -> None:
        width = len(noise.noise)
        self._noise = noise
        self.residual = np.zeros(width)
        self.spread = noise.covariance.copy()
        self.used = np.zeros((categories, width))
        self.category = 0

    def quality(self, predicted: Floats) -> Floats:
        """[K] predictions corrected."""
        return np.maximum(predicted + self.residual, 0.0)

    def learn(self, configuration: int, missed: float) -> None:
        """From one report: `missed` is its quality less the prediction (without residual)."""
        noise = self._noise
        learn_residual(
            self.residual,
            self.spread,
            configuration,
            missed,
            noise.persistence,
            noise.covariance,
            noise.noise,
        )


def warm() -> None:
    """Compile what a choice calls (seconds, once per machine), before the first segment waits for it."""
    two = np.ones(2)
    belief = Belief(ResidualNoise(0.5, np.eye(2), two), categories=1)
    belief.learn(0, 0.0)
    situation = Situation(two, two, 0.0, 1.0, _UNLIMITED)
    by_prices(situation)
    by_plan(situation, two, two)
    category(np.ones((1, 2)), 1.0, 0)
    recalibrated(1.0, 1.0, 1.0)
    worth_at(0.0, two, two)


def by_prices(situation: Situation) -> Choice:
    """`argmax scale·q̂ − λ·work` over what the guard allows."""

    def best(slack: float) -> int:
        count = len(situation.work)
        return int(
            best_option(
                situation.quality,
                np.arange(count),
                situation.work,
                np.zeros(count),
                situation.value_scale,
                situation.work_price,
                0.0,
                slack,
                _UNLIMITED,
            )
        )

    return _judged(situation, best(situation.slack_core_seconds), best(_UNLIMITED), Rule.PRICED)


def by_plan(situation: Situation, alpha: Floats, used: Floats) -> Choice:
    """The paper's switcher: argmax(α − α̂) of the current category, else down to what the guard allows.

    alpha, used [K] of the category; the paper orders configurations by their quality on it.
    """
    wanted = int(pick(alpha, used))
    taken = fall_back(
        wanted,
        situation.work,
        np.zeros(len(situation.work)),
        situation.quality,
        situation.slack_core_seconds,
        _UNLIMITED,
    )
    return _judged(situation, int(taken), wanted, Rule.PLANNED)


def by_hand(situation: Situation, wanted: int) -> Choice:
    """A fixed configuration, unless the guard forbids it: then the dearest below it that is allowed."""
    fits = [k for k in range(wanted + 1) if situation.work[k] <= situation.slack_core_seconds]
    return _judged(situation, fits[-1] if fits else 0, wanted, Rule.FIXED)


def _judged(situation: Situation, taken: int, wanted: int, rule: Rule) -> Choice:
    if situation.work[taken] > situation.slack_core_seconds:
        return Choice(taken, Rule.FLOOR)
    return Choice(taken, rule if taken == wanted else Rule.GUARDED)
