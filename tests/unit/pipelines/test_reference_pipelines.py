"""What every reference pipeline must hold, with a detector that is a picture's own brightness."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import product

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skyscraper.errors import ConfigError
from skyscraper.pipeline import (
    Configuration,
    Frames,
    Pipeline,
    SegmentContext,
    SegmentResult,
    configure,
    load_pipeline,
)

PIPELINES = ("counting", "covid", "mosei", "mot")
SEGMENTS, SECONDS, FPS = 4, 2.0, 10
# Bright all over, and with something to follow on them.
COATS = np.random.default_rng(2).integers(140, 256, (3, 12, 6, 3), dtype=np.uint8)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class BrightThings:
    """A ModelClient whose detector sees each bright rectangle as a person. Boxes of a picture are its own function, as
    with a real detector, whatever batch it comes in."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, ...]] = []

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[np.generic]],
        parameters: Mapping[str, int | float] | None = None,
    ) -> Mapping[str, NDArray[np.generic]]:
        images = inputs["images"]
        assert len(images), "a detector was asked about nothing"
        self.pictures += [image.shape for image in images]
        boxes = np.zeros((len(images), 8, 4), np.float32)
        scores = np.zeros((len(images), 8), np.float32)
        for number, image in enumerate(images):
            white = (np.asarray(image)[..., 0] > 128).astype(np.uint8)
            _, _, found, _ = cv2.connectedComponentsWithStats(white)
            for place, (x, y, width, height, _) in enumerate(found[1:9]):
                boxes[number, place] = x, y, x + width, y + height
                scores[number, place] = 0.9 - 0.05 * place
        return {"boxes": boxes, "scores": scores, "labels": np.zeros((len(images), 8), np.int64)}


def frames_of(pipeline: Pipeline, configuration: Configuration, segment: int, people: int = 3) -> Frames:
    """People as bright rectangles that walk to the right, in a video of 768 x 576."""
    sampling = pipeline.sampling(configuration)
    rate = min(sampling.frames_per_second, FPS)
    times = np.arange(int(rate * SECONDS)) / rate
    images = np.zeros((len(times), sampling.height, sampling.width, 3), np.uint8)
    for number, time in enumerate(times):
        for person in range(people):
            x = 40 + person * 200 + 20 * (segment * SECONDS + time)
            left, right = (int(edge * sampling.width / 768) for edge in (x, x + 40))
            top, bottom = (int(edge * sampling.height / 576) for edge in (250, 340))
            images[number, top:bottom, left:right] = cv2.resize(
                COATS[person], (right - left, bottom - top), interpolation=cv2.INTER_NEAREST
            )
    return Frames(images, times, 768, 576, len(times), SECONDS)


def step(
    pipeline: Pipeline, configuration: Configuration, state: bytes | None, segment: int, people: int = 3
) -> SegmentResult:
    frames = frames_of(pipeline, configuration, segment, people)
    context = SegmentContext("gate-1", f"gate-1/0/{segment}", START + timedelta(seconds=segment * SECONDS), SECONDS)
    detections = pipeline.detect(frames, configuration, BrightThings())
    assert len(detections) == len(frames.images)
    return pipeline.track(state, context, frames, detections, configuration)


def ends(pipeline: Pipeline) -> list[Configuration]:
    return [{knob.name: knob.domain[end] for knob in pipeline.knobs} for end in (0, -1)]


@pytest.mark.parametrize("name", PIPELINES)
def test_state_through_bytes_in_another_process_goes_on_the_same(name: str) -> None:
    """Each segment by a pipeline object of its own, as after a take-over, against one object all along."""
    steady = load_pipeline(name)
    for configuration in [*ends(steady), configure(steady.knobs, {})]:
        state: bytes | None = None
        handed: bytes | None = None
        for segment in range(SEGMENTS):
            expected = step(steady, configuration, state, segment)
            found = step(load_pipeline(name), configuration, None if handed is None else bytes(handed), segment)
            assert found == expected
            state, handed = expected.state, found.state


@pytest.mark.parametrize("name", ["counting", "covid", "mot"])
def test_people_keep_their_identity_from_segment_to_segment(name: str) -> None:
    pipeline = load_pipeline(name)
    configuration = configure(pipeline.knobs, {"frame_rate": "10"})
    state: bytes | None = None
    found: list[set[object]] = []
    for segment in range(SEGMENTS):
        result = step(pipeline, configuration, state, segment)
        state = result.state
        found.append({row["track_id"] for row in result.rows})
    assert found == [found[0]] * SEGMENTS
    assert len(found[0]) == 3


@pytest.mark.parametrize("name", PIPELINES)
def test_every_row_fits_its_schema_and_names_nobody_on_an_empty_street(name: str) -> None:
    pipeline = load_pipeline(name)
    for configuration in (
        dict(zip([knob.name for knob in pipeline.knobs], values, strict=True))
        for values in product(*[(knob.domain[0], knob.domain[-1]) for knob in pipeline.knobs])
    ):
        result = step(pipeline, configuration, None, 0)
        for index, row in enumerate(result.rows):
            assert pipeline.row_schema.encode(row, stream_id="gate-1", segment="s", index=index)
        empty = step(pipeline, configuration, None, 0, people=0)
        assert list(empty.rows) == []
        assert empty.quality == 0.0


@pytest.mark.parametrize("name", PIPELINES)
def test_a_segment_without_frames_gives_nothing_and_keeps_the_state(name: str) -> None:
    pipeline = load_pipeline(name)
    configuration = configure(pipeline.knobs, {})
    before = step(pipeline, configuration, None, 0)
    size = pipeline.sampling(configuration)
    nothing = Frames(np.zeros((0, size.height, size.width, 3), np.uint8), np.zeros(0), 768, 576, 0, 0.0)
    context = SegmentContext("gate-1", "gate-1/0/1", START + timedelta(seconds=SECONDS), SECONDS)
    detections = pipeline.detect(nothing, configuration, BrightThings())
    result = pipeline.track(before.state, context, nothing, detections, configuration)
    assert (list(result.rows), result.quality) == ([], 0.0)
    assert result.state == before.state


@pytest.mark.parametrize("name", PIPELINES)
def test_a_knob_or_value_that_is_not_there_is_one_clear_error(name: str) -> None:
    pipeline = load_pipeline(name)
    with pytest.raises(ConfigError, match="frame_rate.*1000.*is not one of"):
        configure(pipeline.knobs, {"frame_rate": "1000"})
    with pytest.raises(ConfigError, match="unknown knob 'rate'.*frame_rate"):
        configure(pipeline.knobs, {"rate": "1"})


def test_detecting_less_often_asks_the_detector_less_and_still_follows_everybody() -> None:
    covid = load_pipeline("covid")
    asked = {}
    for every in (60, 5, 1):
        configuration = configure(covid.knobs, {"frame_rate": "10", "detect_every": str(every)})
        models = BrightThings()
        found = covid.detect(frames_of(covid, configuration, 0), configuration, models)
        asked[every] = len(models.pictures)
        assert [len(one.boxes) for one in found] == [3] * 20
    assert asked == {60: 1, 5: 4, 1: 20}


def test_two_by_two_tiles_cost_four_looks_and_find_the_same_people() -> None:
    mot = load_pipeline("mot")
    for tiles, looks in (("1x1", 1), ("2x2", 4)):
        configuration = configure(mot.knobs, {"frame_rate": "1", "tiles": tiles})
        models = BrightThings()
        found = mot.detect(frames_of(mot, configuration, 0), configuration, models)
        assert models.pictures == [(320, 320, 3)] * 2 * looks
        for one in found:
            assert sorted(int(box[0] // 200) for box in one.boxes) == [0, 1, 2]


def test_one_in_n_sentences_is_analysed_and_work_follows_the_speakers() -> None:
    mosei = load_pipeline("mosei")
    for sentences, people, analysed in ((1, 3, 6), (2, 3, 3), (7, 3, 1), (1, 1, 2)):
        configuration = configure(mosei.knobs, {"sentences": str(sentences), "model_size": "large"})
        models = BrightThings()
        mosei.detect(frames_of(mosei, configuration, 0, people), configuration, models)
        assert models.pictures.count((224, 224, 3)) == analysed
        assert len(step(mosei, configuration, None, 0, people).rows) == analysed
