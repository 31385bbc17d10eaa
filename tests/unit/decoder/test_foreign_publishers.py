"""Segments without our headers: their features are read from the bytes, and gaps are filled from their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitted_profile import small_fit
from skyscraper.bus.headers import SegmentHeaders
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper_decoder.ahead import Ahead, Seen
from skyscraper_decoder.predicting import predict_one
from skyscraper_decoder.surveying import Surveyor


def line(offset: int, features: dict[str, float]) -> Seen:
    return Seen(offset, "gate", 0.0, 2.0 * offset, 2.0, 1000, features)


def test_what_the_publisher_did_not_tell_is_read_from_the_bytes() -> None:
    (segment,) = read_segments(parse_source("street:people?seed=1&density=4&seconds=2&fps=5"), 2.0)
    completed = Surveyor().complete("gate", SegmentHeaders(), segment.value)
    assert completed.duration_seconds == pytest.approx(2.0, rel=0.01)
    assert completed.features == pytest.approx(segment.features, rel=0.02)
    told = SegmentHeaders(features={"bytes_per_frame": 1.0})
    assert Surveyor().complete("gate", told, segment.value) is told


def test_a_segment_that_cannot_be_read_keeps_its_headers() -> None:
    assert Surveyor().complete("gate", SegmentHeaders(frames=3), b"noise" * 99) == SegmentHeaders(frames=3)


def test_a_segment_at_its_turn_is_completed_by_what_was_read_ahead() -> None:
    ahead = Ahead(most_segments=10)
    ahead.own(0, 0)
    ahead.add(0, line(7, {"bytes_per_frame": 5.0}))
    bare = replace(line(7, {}), duration_seconds=None)
    completed = ahead.completed(0, bare)
    assert (completed.features, completed.duration_seconds) == ({"bytes_per_frame": 5.0}, 2.0)
    unknown = line(8, {})
    assert ahead.completed(0, unknown) is unknown


def test_what_nobody_told_of_a_segment_is_as_it_was_before_it_or_else_behind_it() -> None:
    fit = small_fit()
    names = fit.feature_names
    full = {name: float(number) for number, name in enumerate(names)}
    other = {name: 100.0 for name in names}
    many = [line(offset, full) for offset in range(2, 20)]
    for before, behind in (([line(0, full)], [line(2, other)]), ([], many)):
        _, features = predict_one(fit, line(1, {names[0]: 99.0}), before, behind, 86_400.0)
        np.testing.assert_array_equal(features, [99.0, *(full[name] for name in names[1:])])
