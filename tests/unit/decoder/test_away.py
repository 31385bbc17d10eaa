"""What burst machines are offered for, and what their answers and their silence teach."""

from __future__ import annotations

import numpy as np
import pytest
from skyscraper.errors import BadSegment
from skyscraper.pipeline import Detections, Frames
from skyscraper.rpc.burst_client import BurstTerms
from skyscraper.rpc.stage import StageError, bad_outputs, read_inputs, read_outputs, stage_inputs, stage_outputs
from skyscraper_decoder.away import AwayBelief, call_seconds, offer
from skyscraper_decoder.turnstile import Turnstile

TERMS = BurstTerms(
    ready=True,
    usd_per_core_second=1e-5,
    left_usd=1.0,
    budget_usd=2.0,
    calendar_day=True,
    cold_start_seconds=0.0,
    uplink_wait_seconds=0.1,
)
WORK = np.array([0.1, 1.0, 4.0])


def belief() -> AwayBelief:
    return AwayBelief(np.array([0.9, 0.9, 0.95]))


def test_what_takes_longer_than_its_segment_is_not_offered() -> None:
    found = offer(belief(), TERMS, WORK, longest_seconds=2.0, round_trip_seconds=0.2, usd_price=3.0)
    assert found is not None
    np.testing.assert_allclose(found.seconds[:2], [0.39, 1.2])
    np.testing.assert_allclose(found.burst.work[:2], [0.01, 0.1])
    np.testing.assert_allclose(found.burst.usd[:2], [0.9e-6, 9e-6])
    assert found.burst.work[2] == np.inf
    assert offer(belief(), TERMS, WORK, longest_seconds=0.1, round_trip_seconds=0.2, usd_price=3.0) is None


def test_a_configuration_that_cannot_be_away_is_not_offered() -> None:
    none = AwayBelief(np.full(3, np.nan))
    assert offer(none, TERMS, WORK, longest_seconds=9.0, round_trip_seconds=0.0, usd_price=0.0) is None


def test_answers_teach_how_much_slower_and_further_machines_are() -> None:
    away = belief()
    for _ in range(300):
        away.learn(estimated=1.0, core_seconds=1.5, seconds=2.0)
    assert away.scale == pytest.approx(1.5, rel=0.01)
    assert away.overhead_seconds == pytest.approx(0.5, rel=0.01)


def test_silence_makes_the_pool_look_slow_until_that_is_forgotten() -> None:
    away = belief()
    away.missed(expected_core_seconds=1.0, seconds=6.0)
    assert offer(away, TERMS, WORK, longest_seconds=2.0, round_trip_seconds=0.2, usd_price=0.0) is None
    for _ in range(200):
        away.fade(0.2)
    assert offer(away, TERMS, WORK, longest_seconds=2.0, round_trip_seconds=0.2, usd_price=0.0) is not None


def test_a_call_waits_for_a_retry_but_not_beyond_what_the_guard_allows() -> None:
    assert call_seconds(1.0, 30.0) == 3.5
    assert call_seconds(1.0, 2.0) == 2.0


def test_a_stage_gives_what_the_pipeline_would_have_found_here() -> None:
    frames = Frames(np.zeros((2, 4, 4, 3), np.uint8), np.array([0.0, 0.5]), 768, 576, 5, 1.0)
    found = [
        Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([2], np.int64)),
        Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)),
    ]
    read, detections = read_outputs(stage_outputs(frames, found))
    assert (read.source_width, read.source_height, read.frames_decoded, read.duration_seconds) == (768, 576, 5, 1.0)
    np.testing.assert_array_equal(read.times_seconds, frames.times_seconds)
    for one, other in zip(detections, found, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_a_segment_that_is_at_fault_there_is_at_fault_here() -> None:
    with pytest.raises(BadSegment, match="no bytes") as bad:
        read_outputs(bad_outputs(BadSegment("empty", "the segment has no bytes")))
    assert bad.value.reason == "empty"


def test_a_stage_is_told_the_configuration_and_refuses_noise() -> None:
    inputs = stage_inputs(b"video", {"frame_rate": 5, "model": "a"}, pipeline_version="1", expected_frames=None)
    segment, request = read_inputs(inputs)
    assert segment == b"video"
    assert dict(request.configuration) == {"frame_rate": "5", "model": "a"}
    assert not request.HasField("expected_frames")
    with pytest.raises(StageError):
        read_outputs({"result": np.full((1, 9), 255, np.uint8)})


def test_segments_that_are_away_do_not_hold_others_and_come_back_at_once() -> None:
    turnstile = Turnstile(own_cores=None, concurrent=1)
    away = turnstile.enter(0, arrived_seconds=0.0, refused=False, closed=lambda: False)
    assert away is not None
    away.begin(0.01, away=True)
    here = turnstile.enter(1, arrived_seconds=0.0, refused=False, closed=lambda: False)
    assert here is not None
    here.begin(1.0)
    away.come_back(1.0)
    assert turnstile._running == 2
    away.end()
    here.end()
    assert turnstile._running == 0
