"""A survey of a segment's bytes tells what its publisher would have told."""

from __future__ import annotations

import pytest
from skyscraper.errors import BadSegment
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.media.survey import survey


def test_a_survey_finds_the_length_and_the_packets_that_the_cutter_saw() -> None:
    segments = list(read_segments(parse_source("street:people?seed=1&density=4&seconds=4&fps=5"), 2.0))
    assert len(segments) == 2
    for segment in segments:
        found = survey(segment.value)
        assert found.duration_seconds == pytest.approx(segment.duration_seconds, rel=0.01)
        told = {name: value for name, value in segment.features.items() if not name.startswith("look_")}
        assert found.features == pytest.approx(told, rel=0.02)


@pytest.mark.parametrize(("value", "reason"), [(b"", "empty"), (b"no video at all" * 100, "corrupt")])
def test_bytes_that_are_no_video_are_refused_with_the_reason(value: bytes, reason: str) -> None:
    with pytest.raises(BadSegment) as raised:
        survey(value)
    assert raised.value.reason == reason
