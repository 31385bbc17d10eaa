"""A fit on trial: it predicts beside the one in force, on segments that neither was fitted on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from skyscraper.control.drift import Shadow
from skyscraper.profile.fit import Fit
from skyscraper.profile.refit import believed
from skyscraper.v1 import digest_pb2

from skyscraper_tuner.past import samples_of


@dataclass(frozen=True)
class Trial:
    """since_seconds (since 1970): what came before was used to learn it."""

    fit: Fit
    since_seconds: float


def judged(fit: Fit, trial: Trial, slots: Iterable[digest_pb2.SlotDigest], versions: Collection[str]) -> Shadow:
    """Both fits' errors on the same samples, each predicting from features alone.

    The configuration that ran is the only one whose quality is known, so only its errors count.
    """
    samples = samples_of(slots, fit, {*versions, fit.version}, since_seconds=trial.since_seconds)
    if samples.count == 0 or trial.fit.configurations != fit.configurations:
        return Shadow()
    rows = np.arange(samples.count)
    sums = [
        float(((samples.quality - believed(one, samples)[0][rows, samples.configuration]) ** 2).sum())
        for one in (fit, trial.fit)
    ]
    return Shadow(segments=samples.count, in_force=sums[0], on_trial=sums[1])
