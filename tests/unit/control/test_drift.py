"""Drift is seen within hours, single errors are not drift, and a new profile must prove itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.drift import Drift, Shadow, forecast_drifted, watched
from skyscraper.control.work import recalibrated


def after(drift: Drift, errors: object, segment_seconds: float = 4.0) -> Drift:
    for error in errors:  # type: ignore[attr-defined]
        drift = watched(drift, error=float(error), expected_deviation=1.0, segment_seconds=segment_seconds)
    return drift


def test_errors_as_in_training_are_no_drift_for_a_week() -> None:
    rng = np.random.default_rng(0)
    drift = Drift()
    for _ in range(7 * 24):
        drift = after(drift, rng.normal(size=900))
        assert not drift.drifted


def test_errors_twice_as_large_are_drift_within_an_hour_and_a_half() -> None:
    rng = np.random.default_rng(0)
    assert after(Drift(), rng.normal(size=1350) * 2).drifted


def test_an_alarm_ends_when_errors_are_small_again() -> None:
    rng = np.random.default_rng(0)
    drift = after(Drift(), rng.normal(size=3600) * 2)
    assert drift.drifted
    assert not after(drift, rng.normal(size=3600)).drifted


@given(error=st.floats(-1e9, 1e9))
def test_one_report_is_never_drift(error: float) -> None:
    assert not watched(Drift(), error=error, expected_deviation=1.0, segment_seconds=4.0).drifted


def test_a_quality_that_never_varied_tells_nothing() -> None:
    assert watched(Drift(), error=5.0, expected_deviation=0.0, segment_seconds=4.0) == Drift()


def test_a_forecast_is_wrong_only_beyond_its_own_error() -> None:
    assert not forecast_drifted(0.05, 0.04)
    assert forecast_drifted(0.2, 0.04)
    assert not forecast_drifted(0.02, 0.0)


def test_a_profile_on_trial_takes_over_only_when_clearly_better_for_long_enough() -> None:
    shadow = Shadow()
    for _ in range(499):
        shadow = shadow.after(error_in_force=2.0, error_on_trial=1.0)
    assert not shadow.promoted
    assert shadow.after(error_in_force=2.0, error_on_trial=1.0).promoted
    equal = Shadow()
    for _ in range(1000):
        equal = equal.after(error_in_force=1.0, error_on_trial=0.97)
    assert not equal.promoted


@given(factor=st.floats(0.3, 3.0))
def test_a_wrong_work_estimate_is_learned_within_minutes(factor: float) -> None:
    scale = 1.0
    for _ in range(300):
        scale = recalibrated(scale, 2.0, 2.0 * factor)
    assert abs(scale - factor) < 0.02 * max(factor, 1.0)
    assert recalibrated(scale, 0.0, 5.0) == scale
