"""One segment's choice, as the decoder makes it: the simulator's own functions, called for one stream at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.demand import Options, options
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


class Placement(Enum):
    """Where a segment's stateless operators run."""

    POOL = "pool"
    BURST = "burst"


@dataclass(frozen=True)
class BurstOffer:
    """What burst machines would do for a segment. K configurations.

    work [K] core-seconds that the pool is left with, infinite where a configuration cannot be away; usd [K];
    usd_price μ in normalised quality per dollar; left_usd: the most that may be spent on it.
    """

    work: Floats
    usd: Floats
    usd_price: float
    left_usd: float


@dataclass(frozen=True)
class Situation:
    """What a choice rests on. K configurations, from the cheapest.

    quality [K] as believed, in the pipeline's unit; work [K] core-seconds as estimated; work_price in normalised
    quality per core-second; value_scale normalised quality per unit; slack_core_seconds: the most the guard allows;
    burst: None while burst machines cannot be had.
    """

    quality: Floats
    work: Floats
    work_price: float
    value_scale: float
    slack_core_seconds: float
    burst: BurstOffer | None = None


@dataclass(frozen=True)
class Choice:
    """advantage: normalised quality by which it is better than the best that stays in the pool."""

    configuration: int
    rule: Rule
    placement: Placement = Placement.POOL
    advantage: float = 0.0


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
    situation = Situation(two, two, 0.0, 1.0, _UNLIMITED, BurstOffer(two, two, 0.0, 0.0))
    by_prices(situation)
    by_plan(situation, two, two)
    category(np.ones((1, 2)), 1.0, 0)
    recalibrated(1.0, 1.0, 1.0)
    worth_at(0.0, two, two)


def by_prices(situation: Situation) -> Choice:
    """`argmax scale·q̂ − λ·work − μ·usd` over what the guard and the budget allow."""
    choice = _options(situation)
    usd_price, left_usd = (
        (0.0, 0.0) if situation.burst is None else (situation.burst.usd_price, situation.burst.left_usd)
    )

    def best(slack: float, budget: float) -> int:
        return int(
            best_option(
                situation.quality,
                choice.configuration,
                choice.work,
                choice.usd,
                situation.value_scale,
                situation.work_price,
                usd_price,
                slack,
                budget,
            )
        )

    def score(option: int) -> float:
        value = situation.value_scale * max(float(situation.quality[choice.configuration[option]]), 0.0)
        return value - situation.work_price * float(choice.work[option]) - usd_price * float(choice.usd[option])

    taken = best(situation.slack_core_seconds, left_usd)
    found = _judged(situation, choice, taken, best(_UNLIMITED, left_usd), Rule.PRICED)
    if found.placement is Placement.POOL:
        return found
    return replace(found, advantage=score(taken) - score(best(situation.slack_core_seconds, 0.0)))


def by_plan(situation: Situation, alpha: Floats, used: Floats) -> Choice:
    """The paper's switcher: argmax(α − α̂) of the current category, in the pool if that fits the buffer, else on burst
    machines, else down to what the guard allows.

    alpha, used [K] of the category; the paper orders configurations by their quality on it.
    """
    choice = _options(situation)
    wanted = int(pick(alpha, used))
    taken = fall_back(
        wanted,
        choice.work,
        choice.usd,
        # Of equal quality the first is taken, and those in the pool come first.
        situation.quality[choice.configuration],
        situation.slack_core_seconds,
        0.0 if situation.burst is None else situation.burst.left_usd,
    )
    return _judged(situation, choice, int(taken), wanted, Rule.PLANNED)


def by_hand(situation: Situation, wanted: int) -> Choice:
    """A fixed configuration, unless the guard forbids it: then the dearest below it that is allowed."""
    fits = [k for k in range(wanted + 1) if situation.work[k] <= situation.slack_core_seconds]
    return _judged(situation, options(situation.work, None), fits[-1] if fits else 0, wanted, Rule.FIXED)


def _options(situation: Situation) -> Options:
    """All configurations in the pool, then those that can be on burst machines."""
    pool = options(situation.work, None)
    if situation.burst is None:
        return pool
    away = np.flatnonzero(np.isfinite(situation.burst.work))
    return Options(
        np.concatenate([pool.work, situation.burst.work[away]]),
        np.concatenate([pool.usd, situation.burst.usd[away]]),
        np.concatenate([pool.configuration, away]),
    )


def _judged(situation: Situation, choice: Options, taken: int, wanted: int, rule: Rule) -> Choice:
    placement = Placement.POOL if taken < len(situation.work) else Placement.BURST
    configuration = int(choice.configuration[taken])
    if choice.work[taken] > situation.slack_core_seconds:
        return Choice(configuration, Rule.FLOOR, placement)
    same = configuration == int(choice.configuration[wanted])
    return Choice(configuration, rule if same else Rule.GUARDED, placement)
