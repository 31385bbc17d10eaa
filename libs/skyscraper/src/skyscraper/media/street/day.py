"""A day on the street: how many people there are, and how much light, by the hour. Pure and seeded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

HOURS = 24.0
# Peaks of a working day, and how wide they are.
_RUSH_HOURS = (8.3, 12.5, 17.6)
_RUSH_HEIGHTS = (1.0, 0.6, 0.95)
_RUSH_WIDTH_HOURS = 1.1
_DAYTIME_LEVEL = 0.3
_NIGHT_LEVEL = 0.04
# Civil dawn and dusk at the equinox, half an hour each.
_DAWN_HOUR, _DUSK_HOUR, _TWILIGHT_HOURS = 6.5, 18.5, 1.0


@dataclass(frozen=True)
class DayCurve:
    """Rush hours, calm hours and quiet nights. Each day of a seed is a little different: rushes come earlier or later,
    stronger or weaker."""

    seed: int = 0

    def crowd(self, hour: float) -> float:
        """Share of the busiest moment's density, 0 to 1, at an hour since the first midnight (any number of days)."""
        day, of_day = divmod(hour, HOURS)
        rng = np.random.default_rng([self.seed, int(day) % (1 << 31), 1])
        shifts, strengths = rng.normal(0, 0.25, len(_RUSH_HOURS)), rng.uniform(0.75, 1.0, len(_RUSH_HOURS))
        rush = sum(
            height * strength * math.exp(-(((of_day - peak - shift) / _RUSH_WIDTH_HOURS) ** 2))
            for peak, height, shift, strength in zip(_RUSH_HOURS, _RUSH_HEIGHTS, shifts, strengths, strict=True)
        )
        base = _NIGHT_LEVEL + (_DAYTIME_LEVEL - _NIGHT_LEVEL) * self.light(hour)
        return float(min(1.0, base + (1 - base) * rush))

    def light(self, hour: float) -> float:
        """0 is night, 1 is day, with a smooth dawn and dusk."""
        of_day = hour % HOURS
        dawn = _smooth((of_day - _DAWN_HOUR) / _TWILIGHT_HOURS + 0.5)
        dusk = _smooth((of_day - _DUSK_HOUR) / _TWILIGHT_HOURS + 0.5)
        return dawn - dusk if of_day < HOURS else 0.0


def _smooth(x: float) -> float:
    """0 below 0, 1 above 1, and no corner between (3x² - 2x³)."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)
