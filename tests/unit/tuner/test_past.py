"""What the planner believes of a stream's past."""

from __future__ import annotations

import numpy as np
import pytest
from fitted_profile import small_fit
from skyscraper_tuner.past import blended, lay_out, samples_of


@pytest.mark.parametrize("day_seconds", [86_400.0, 120.0])
def test_a_profiles_days_are_laid_out_over_the_contents_day(day_seconds: float) -> None:
    fit = small_fit(days=4)
    days = lay_out([], day_seconds=day_seconds, history_days=3)
    _, truth, seconds = blended(fit, samples_of([], fit, {fit.version}), days)
    assert 0 <= seconds.min() < seconds.max() < 3 * day_seconds
    assert len(seconds) == pytest.approx(3 / 4 * len(fit.history.seconds), rel=0.01)
    # The rush is in the middle of every day.
    busiest = seconds[np.argsort(-truth[:, -1])[:30]] % day_seconds / day_seconds
    assert np.abs(busiest - 0.5).max() < 0.1
