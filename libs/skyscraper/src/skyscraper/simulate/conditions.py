"""What a replay happens under: the resources that streams share, and what controllers are not told."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY, buffer_seconds
from skyscraper.simulate.errors import TraceError

Floats = NDArray[np.float64]

# Coming days may bring denser video than the training's densest hours.
_DENSER = 1.1


@dataclass(frozen=True)
class Resources:
    """What the streams share. `reserve_seconds` of the buffer are kept free by the guard, to ride out an outage.
    `uncertainty` of work, relative, is what training measured if not given.

    A buffer may have a limit of bytes beside that of seconds; the guard then takes the densest video seen in training.
    Burst machines are behind an uplink; interruptions, which come at random, are not told to any policy.
    """

    cores: float
    buffer_seconds: float
    usd_per_day: float = 0.0
    uncertainty: float | None = None
    reserve_seconds: float = 0.0
    buffer_bytes: float | None = None
    uplink_bytes_per_second: float | None = None
    interruptions_per_day: float = 0.0
    interruption_seconds: float = 120.0


@dataclass(frozen=True)
class Disturbance:
    """What the controllers are not told. Work differs from its estimate by a factor; the pool stands still a while
    (seconds after the start of the test part)."""

    work_factor: float = 1.0
    outage_start_seconds: float = 0.0
    outage_seconds: float = 0.0


UNDISTURBED = Disturbance()


def check_conditions(resources: Resources, disturbance: Disturbance) -> None:
    """Raises TraceError for what makes no sense."""
    for name, value in (asdict(resources) | asdict(disturbance)).items():
        if value is not None and (not np.isfinite(value) or value < 0):
            raise TraceError(f"{name} is {value:g}; expected a finite number, 0 or more")
    for name in ("buffer_bytes", "uplink_bytes_per_second"):
        if getattr(resources, name) == 0:
            raise TraceError(f"{name} is 0; leave it out for no limit")
    if resources.reserve_seconds > resources.buffer_seconds:
        raise TraceError(
            f"the reserve of {resources.reserve_seconds:g} s is more than the buffer of {resources.buffer_seconds:g} s"
        )


def held_seconds(size_bytes: float, most_seconds: float, round_bytes: Floats, segment_seconds: float) -> float:
    """The longest time, up to `most_seconds`, whose densest video fits into so many bytes.

    round_bytes [T]: of all streams, per round of training.
    """
    totals = np.concatenate([[0.0], np.cumsum(round_bytes)])

    def densest(seconds: float) -> float:
        """Most bytes per second over any such time."""
        rounds = int(np.clip(seconds / segment_seconds, 1, len(round_bytes)))
        return float((totals[rounds:] - totals[:-rounds]).max()) / (rounds * segment_seconds)

    seconds = most_seconds
    # The shorter the time, the denser its densest; a few steps settle it.
    while (held := buffer_seconds(size_bytes, _DENSER * densest(seconds))) < seconds - segment_seconds:
        seconds = held
    # What is being worked on and what is arriving take room, too.
    return max(min(seconds, held) - 2 * segment_seconds, 0.0)


def burst_up(rounds: int, segment_seconds: float, resources: Resources, seed: int) -> NDArray[np.bool_]:
    """[T] whether burst machines answer: interruptions begin at random and last alike."""
    rng = np.random.default_rng([seed, 29])
    begins = rng.random(rounds) < resources.interruptions_per_day * segment_seconds / SECONDS_PER_DAY
    length = max(1, round(resources.interruption_seconds / segment_seconds))
    return np.asarray(np.convolve(begins, np.ones(length))[:rounds] < 0.5)
