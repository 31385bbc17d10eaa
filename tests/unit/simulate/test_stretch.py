"""Days from minutes: what is laid out is what was recorded, where it fits, and parts share no pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skyscraper.media.street.day import DayCurve
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.stretch import stretch
from skyscraper.simulate.trace import Trace, make_trace

COUNT, SECONDS = 480, 2.0


def recording() -> Trace:
    """A day in 480 segments whose quality is their number."""
    number = np.arange(COUNT, dtype=float)
    return make_trace(
        "recorded",
        quality=np.stack([number, number + 0.5], axis=1),
        work_core_seconds=[0.1, 1.0],
        segment_bytes=number + 1,
        segment_seconds=SECONDS,
        features=number[:, None],
        hours=number * 24 / COUNT,
    )


def test_busy_hours_show_busy_moments() -> None:
    found = stretch(recording(), days=2, seed=3, base_seed=5)
    assert found.segments == 2 * 43_200
    recorded, wanted = DayCurve(5), DayCurve(3)
    shown = found.quality[:, 0] * 24 / COUNT
    rows = np.arange(0, found.segments, 997)
    crowd = np.array([recorded.crowd(shown[row]) for row in rows])
    target = np.array([wanted.crowd(row * SECONDS / 3600) for row in rows])
    assert np.corrcoef(crowd, target)[0, 1] > 0.9


def test_everything_of_a_segment_stays_together_and_the_seed_repeats_it() -> None:
    one, two = (stretch(recording(), days=0.5, seed=1, base_seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.quality, two.quality)
    np.testing.assert_array_equal(one.features[:, 0], one.quality[:, 0])
    np.testing.assert_array_equal(one.segment_bytes, one.quality[:, 0] + 1)
    assert (stretch(recording(), days=0.5, seed=2, base_seed=5).quality != one.quality).any()


def test_parts_are_made_of_different_segments() -> None:
    found = stretch(recording(), days=4, seed=1, base_seed=5, parts=(0.25, 0.25, 0.5)).quality[:, 0]
    ends = [0, len(found) // 4, len(found) // 2, len(found)]
    # A run that began before the end of a part may reach a few segments over it.
    shown = [set(found[start + 20 : stop - 20]) for start, stop in zip(ends[:-1], ends[1:], strict=True)]
    assert not shown[0] & shown[1]
    assert not shown[1] & shown[2]
    assert not shown[0] & shown[2]


def test_a_recording_without_hours_or_too_short_is_refused() -> None:
    with pytest.raises(TraceError, match="hour"):
        stretch(replace(recording(), hours=None), days=1, seed=0, base_seed=0)
    with pytest.raises(TraceError, match="too few"):
        stretch(recording().part(0, 30), days=1, seed=0, base_seed=0, parts=(1.0, 1.0))
