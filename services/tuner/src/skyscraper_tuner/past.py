"""What is believed of every stream's past: the profile's history, and what was seen online.

Days seen online take the place of the profile's days one by one, until one of those is left: recent days weigh more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.fit import Fit
from skyscraper.profile.refit import Samples, believed, width_of
from skyscraper.v1 import digest_pb2

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Days:
    """How days of the content are laid out one after the other: those kept of a profile, then the online ones."""

    day_seconds: float
    profile_days: int
    online: tuple[int, ...]
    """Days since 1970 on which anything was seen, in order; days in between without any are left out."""

    def place(self, seconds: Floats) -> Floats:
        """Seconds since the layout's first midnight, of moments in seconds since 1970 on the online days."""
        day = np.asarray(seconds // self.day_seconds, dtype=np.int64)
        index = np.searchsorted(np.array(self.online, dtype=np.int64), day)
        return np.asarray((self.profile_days + index) * self.day_seconds + seconds % self.day_seconds)


def lay_out(slots: Iterable[digest_pb2.SlotDigest], *, day_seconds: float, history_days: int) -> Days:
    """The newest online days, and as many of a profile as are missing; today, seen in part, replaces none."""
    seen = {int(one.slot * one.slot_seconds // day_seconds) for one in slots if one.segments}
    online = tuple(sorted(seen)[-history_days:])
    return Days(day_seconds, history_days - max(len(online) - 1, 0), online)


def samples_of(
    slots: Iterable[digest_pb2.SlotDigest], fit: Fit, versions: Collection[str], *, since_seconds: float = 0.0
) -> Samples:
    """All samples that the fit can learn from or be judged on, in the order of time."""
    width = len(fit.configurations)
    kept = [
        sample
        for one in slots
        for sample in one.samples
        if sample.seconds >= since_seconds
        and sample.profile_version in versions
        and 0 <= sample.configuration < width
        and len(sample.inputs) == width_of(fit)
        and np.isfinite(sample.quality)
    ]
    kept.sort(key=lambda sample: (sample.seconds, sample.draw))
    return Samples(
        np.array([sample.seconds for sample in kept], dtype=np.float64),
        np.array([sample.inputs for sample in kept], dtype=np.float64).reshape(len(kept), width_of(fit)),
        np.array([sample.configuration for sample in kept], dtype=np.int64),
        np.array([sample.quality for sample in kept], dtype=np.float64),
    )


def blended(fit: Fit, samples: Samples, days: Days) -> tuple[Floats, Floats, Floats]:
    """predicted [R,K], truth [R,K], seconds [R] since the layout's first midnight.

    A profile's days have 24 hours; where the content's day is shown faster, they are laid out over that.
    """
    history = fit.history
    of_profile = np.asarray(history.seconds // SECONDS_PER_DAY, dtype=np.int64)
    # Its last days; a profile of fewer is repeated no further.
    last = int(of_profile.max()) if len(of_profile) else 0
    placed = of_profile - last + days.profile_days - 1
    keep = placed >= 0
    parts = [
        (
            history.predicted[keep],
            history.truth[keep],
            (placed[keep] + history.seconds[keep] % SECONDS_PER_DAY / SECONDS_PER_DAY) * days.day_seconds,
        )
    ]
    online = np.isin(samples.seconds // days.day_seconds, np.array(days.online, dtype=np.float64))
    if online.any():
        newest = Samples(
            samples.seconds[online], samples.inputs[online], samples.configuration[online], samples.quality[online]
        )
        predicted, truth = believed(fit, newest)
        parts.append((predicted, truth, days.place(newest.seconds)))
    predicted, truth, seconds = (np.concatenate(each) for each in zip(*parts, strict=True))
    return predicted, truth, seconds


def labels_of(slots: Sequence[digest_pb2.SlotDigest], categories: int) -> Integers:
    """[T] categories of all segments, by slot in the order of time; within a slot the order is not known."""
    counted = sorted((one for one in slots if len(one.categories) == categories), key=lambda one: one.slot)
    parts = [np.repeat(np.arange(categories), np.array(one.categories, dtype=np.int64)) for one in counted]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


def by_stream(slots: Iterable[digest_pb2.SlotDigest]) -> Mapping[str, list[digest_pb2.SlotDigest]]:
    found: dict[str, list[digest_pb2.SlotDigest]] = {}
    for one in slots:
        found.setdefault(one.stream_id, []).append(one)
    return found
