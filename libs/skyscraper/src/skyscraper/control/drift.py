"""Whether the content has left what the profile was learned on, and whether a new profile is better.

Two signs: qualities are further from their predictions than those were in training, for an hour; and category shares
are further from the forecast than in training. A profile that was fitted anew runs in shadow first: it predicts beside
the old one, and takes over only when it has been clearly better on segments that neither was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Of an hour of segments, whatever their length; a shorter memory would take one rush hour for drift.
_MEMORY_SECONDS = 3_600.0
# Squared errors twice those of training: deviations 1.4 times as large.
_ALARM = 2.0
# Below this the state is normal again; the distance keeps an alarm from flickering.
_CLEAR = 1.5
# A forecaster is expected to be wrong by its validation error; three times that is no chance.
_FORECAST_ALARM = 3.0
# A profile must lower the squared error by a tenth to be worth a change of everything that depends on it.
_PROMOTION_GAIN = 0.1
# An hour of segments of 4 s, rounded down: fewer prove nothing.
_PROMOTION_SEGMENTS = 500


@dataclass(frozen=True)
class Drift:
    """Mean squared prediction error of late, as a multiple of training's; 1 is as learned."""

    error: float = 1.0
    drifted: bool = False


def watched(drift: Drift, *, error: float, expected_deviation: float, segment_seconds: float) -> Drift:
    """After one more report. error: reported minus predicted quality; expected_deviation: of such in training."""
    if expected_deviation <= 0:
        return drift
    # A single report, however far off, moves the mean by no more than an hour of alarms would be worth.
    squared = min((error / expected_deviation) ** 2, 100.0)
    share = min(segment_seconds / _MEMORY_SECONDS, 1.0)
    mean = drift.error + share * (squared - drift.error)
    return Drift(mean, mean > (_CLEAR if drift.drifted else _ALARM))


def forecast_drifted(mean_absolute_error: float, validation_error: float) -> bool:
    """Whether a window's shares were further from their forecast than the forecaster's validation lets expect."""
    return mean_absolute_error > _FORECAST_ALARM * max(validation_error, 0.01)


@dataclass(frozen=True)
class Shadow:
    """A profile on trial: sums of squared errors of the one in force and of itself, over the same reports."""

    segments: int = 0
    in_force: float = 0.0
    on_trial: float = 0.0

    def after(self, *, error_in_force: float, error_on_trial: float) -> Shadow:
        return replace(
            self,
            segments=self.segments + 1,
            in_force=self.in_force + error_in_force**2,
            on_trial=self.on_trial + error_on_trial**2,
        )

    @property
    def promoted(self) -> bool:
        """Whether it takes over."""
        return self.segments >= _PROMOTION_SEGMENTS and self.on_trial < (1 - _PROMOTION_GAIN) * self.in_force
