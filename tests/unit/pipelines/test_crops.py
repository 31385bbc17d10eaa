"""The crops pipeline's own decisions, with networks that say what they are told to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skyscraper.media.street import TruthObject
from skyscraper.models.detections import COCO_LABELS
from skyscraper.models.overlap import intersection_over_union
from skyscraper.pipeline import Frames, SegmentContext, configure, load_pipeline
from skyscraper_pipelines.crops.cutting import CLASSES, cut
from skyscraper_pipelines.crops.examples import _boxes, light_name

PIPELINE = load_pipeline("crops")
CONFIGURATION = configure(PIPELINE.knobs, {"input_size": "320", "experts": "4", "top_k": "1"})
CONTEXT = SegmentContext("gate-1", "gate-1/0/0", datetime(2026, 3, 1, 12, tzinfo=UTC), 2.0)


class Told:
    """The detector finds the given boxes in every frame; the classifier says the given classes of them."""

    def __init__(self, boxes: list[tuple[str, tuple[float, float, float, float]]], classes: list[str]) -> None:
        self.boxes, self.classes = boxes, classes
        self.parameters: list[Mapping[str, int | float] | None] = []

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[np.generic]],
        parameters: Mapping[str, int | float] | None = None,
    ) -> Mapping[str, NDArray[np.generic]]:
        count = len(inputs["images"])
        if model == "nanodet-g":
            return {
                "boxes": np.array([[box for _, box in self.boxes]] * count, np.float32).reshape(count, -1, 4),
                "scores": np.full((count, len(self.boxes)), 0.8, np.float32),
                "labels": np.array([[COCO_LABELS.index(label) for label, _ in self.boxes]] * count, np.int64),
            }
        assert inputs["images"].shape[1:] == (32, 32, 3)
        self.parameters.append(parameters)
        told = np.full((count, len(CLASSES)), 0.0125, np.float32)
        told[np.arange(count), [CLASSES.index(name) for name in self.classes * (count // len(self.classes))]] = 0.9
        return {"probabilities": told}


def frames(count: int = 4) -> Frames:
    return Frames(np.zeros((count, 320, 320, 3), np.uint8), np.arange(count) / 2, 640, 640, count, 2.0)


def rows(models: Told) -> list[Mapping[str, object]]:
    shown = frames()
    detections = PIPELINE.detect(shown, CONFIGURATION, models)
    return list(PIPELINE.track(None, CONTEXT, shown, detections, CONFIGURATION).rows)


def test_the_classifier_decides_what_an_object_is_and_whether_it_is_one() -> None:
    models = Told(
        [("person", (10, 10, 40, 80)), ("truck", (100, 10, 200, 80)), ("bicycle", (250, 10, 290, 60))],
        ["person/night", "vehicle/night", "nothing/night"],
    )
    found = rows(models)
    assert [(row["label"], row["light"], row["x_min"]) for row in found] == [
        ("person", "night", 20.0),
        ("vehicle", "night", 200.0),
    ]
    assert all(PIPELINE.row_schema.encode(row, stream_id="s", segment="s", index=0) for row in found)  # type: ignore[arg-type]
    assert models.parameters == [{"top_k": 1, "active_experts": 4}]


def test_a_car_that_is_also_taken_for_a_truck_is_one_vehicle() -> None:
    box = (100.0, 10.0, 200.0, 80.0)
    assert len(rows(Told([("car", box), ("truck", box)], ["vehicle/day", "vehicle/day"]))) == 1


def test_a_frame_has_one_light() -> None:
    boxes = [("person", (10.0 + 60 * number, 10.0, 40.0 + 60 * number, 80.0)) for number in range(3)]
    found = rows(Told(boxes, ["person/dusk", "person/day", "person/dusk"]))
    assert [row["light"] for row in found] == ["dusk"] * 3


def test_the_classifier_is_not_asked_about_nothing() -> None:
    models = Told([], [])
    assert rows(models) == []
    assert models.parameters == []


def test_quality_falls_with_the_classifiers_doubt() -> None:
    shown, sure = frames(), Told([("person", (10, 10, 40, 80))], ["person/day"])
    result = PIPELINE.track(None, CONTEXT, shown, PIPELINE.detect(shown, CONFIGURATION, sure), CONFIGURATION)
    # 0.8 of the detector, times all but the classes of nothing.
    seen = sum(int(str(row["frames_seen"])) for row in result.rows)
    assert result.quality == pytest.approx(seen * 0.5 * 0.8 * (1 - 3 * 0.0125), rel=1e-4)


@given(
    st.lists(st.tuples(*[st.floats(-50, 400)] * 4), max_size=5),
    st.integers(1, 300),
    st.integers(1, 300),
)
def test_any_box_gives_a_crop(boxes: list[tuple[float, ...]], height: int, width: int) -> None:
    image = np.full((height, width, 3), 7, np.uint8)
    crops = cut(image, np.array(boxes, np.float64).reshape(-1, 4))
    assert crops.shape == (len(boxes), 32, 32, 3)
    assert (crops == 7).all()


def test_boxes_of_nothing_touch_no_object() -> None:
    objects = [TruthObject(1, "person", (300, 200, 340, 290), 1.0), TruthObject(2, "person", (100, 100, 130, 170), 0.1)]
    for seed in range(50):
        boxes, labels = _boxes(objects, 768, 576, np.random.default_rng(seed))
        assert labels[0] == "person"
        assert labels[1:] in ([], ["nothing"])
        exact = np.array([one.box for one in objects], np.float32)
        assert (intersection_over_union(boxes[1:].astype(np.float32), exact) <= 0.1).all()


def test_light_has_three_names() -> None:
    assert [light_name(light) for light in (0.0, 0.24, 0.25, 0.5, 0.75, 1.0)] == [
        *("night", "night", "dusk", "dusk", "day", "day")
    ]


def test_the_model_is_laid_out_beside_what_is_served(tmp_path: Path) -> None:
    train = pytest.importorskip("skyscraper_pipelines.crops.train")
    model = train.ImageClassifier(train.SHAPE)
    assert [train.lay_out(model, tmp_path).name for _ in range(2)] == ["1", "2"]
    assert sorted(path.name for path in (tmp_path / "street-crops" / "2").iterdir()) == [
        *("model.json", "model.safetensors")
    ]


def test_the_knobs_are_what_the_training_covers() -> None:
    train = pytest.importorskip("skyscraper_pipelines.crops.train")
    assert train.choices() == [(2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]
    assert train.dense_shape(train.SHAPE).d_ff == train.SHAPE.k * train.SHAPE.d_ff
