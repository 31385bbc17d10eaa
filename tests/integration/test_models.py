"""The converted models: as accurate as they are known to be, and the same whatever batch an image comes in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
import pytest
from av.video.reformatter import Interpolation
from google.protobuf import text_format
from numpy.typing import NDArray
from skyscraper.models.average_precision import ScoredFrame, average_precision
from skyscraper.models.detections import select
from skyscraper.models.repository import SOURCES, config_pbtxt, default_repository
from tritonclient.grpc import model_config_pb2

pytestmark = pytest.mark.models

FOOTAGE = Path(os.environ.get("SKYSCRAPER_FOOTAGE", Path(__file__).parents[3] / "shared" / "footage")) / "vtest"
EVERY = 5
TOLERANCE = 0.03
# A tenth of it adds less than 0.005 (yolov3-tiny at 320) and costs the suppression most of its time.
SCORE_THRESHOLD = 0.01
IOU_THRESHOLD = 0.45
SIZES = (224, 320, 416, 608)
PERSON = 0
GREY = 114

# Person AP50 with the frame's proportions kept and the rest of the square grey.
LETTERBOXED = {
    "yolov3-tiny": (0.19, 0.64, 0.80, 0.88),
    "nanodet-g": (0.78, 0.90, 0.91, 0.92),
}
# Person AP50 with the frame stretched to the square by the video decoder's own scaler, as the pipeline asks for it.
STRETCHED = {
    ("yolov3-tiny", 224): 0.29,
    ("yolov3-tiny", 320): 0.71,
    ("nanodet-g", 224): 0.76,
    ("nanodet-g", 320): 0.89,
}


@dataclass(frozen=True)
class LabelledFrame:
    """`truth`: people as x_min, y_min, x_max, y_max in the frame's pixels, float32 [t, 4]."""

    frame: av.VideoFrame
    truth: NDArray[np.float32]


@lru_cache(maxsize=2)
def session(name: str) -> onnxruntime.InferenceSession:
    path = default_repository() / name / "1" / "model.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there: run `make models`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(name: str, images: NDArray[np.uint8]) -> list[NDArray[np.generic]]:
    outputs: list[NDArray[np.generic]] = session(name).run(["boxes", "scores", "labels"], {"images": images})
    return outputs


@pytest.fixture(scope="module")
def labelled() -> list[LabelledFrame]:
    if not (FOOTAGE / "vtest.avi").is_file():
        pytest.skip(f"{FOOTAGE} is not there: set SKYSCRAPER_FOOTAGE to the folder with vtest/")
    rows = np.loadtxt(FOOTAGE / "gt.txt", delimiter=",", dtype=np.float32)
    boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], axis=1)
    # The ground truth counts frames from one.
    return [LabelledFrame(frame, boxes[rows[:, 0] == index + 1]) for index, frame in sampled()]


def sampled() -> Iterator[tuple[int, av.VideoFrame]]:
    with av.open(str(FOOTAGE / "vtest.avi")) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % EVERY == 0:
                yield index, frame


def letterboxed(frame: av.VideoFrame, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The image, and what its boxes are multiplied with to be in the frame's pixels."""
    ratio = size / max(frame.width, frame.height)
    width, height = round(frame.width * ratio), round(frame.height * ratio)
    image = np.full((size, size, 3), GREY, dtype=np.uint8)
    image[:height, :width] = cv2.resize(frame.to_ndarray(format="rgb24"), (width, height))
    return image, np.full(4, 1 / ratio, dtype=np.float32)


def stretched(frame: av.VideoFrame, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    scaled = frame.reformat(size, size, "rgb24", interpolation=Interpolation.BILINEAR)
    scale = np.array([frame.width / size, frame.height / size] * 2, dtype=np.float32)
    return scaled.to_ndarray().astype(np.uint8, copy=False), scale


def people(name: str, image: NDArray[np.uint8], scale: NDArray[np.float32], truth: NDArray[np.float32]) -> ScoredFrame:
    boxes, scores, labels = (output[0] for output in run(name, image[None]))
    found = select(boxes, scores, labels, score_threshold=SCORE_THRESHOLD, iou_threshold=IOU_THRESHOLD)
    person = found.labels == PERSON
    return ScoredFrame(found.boxes[person] * scale, found.scores[person], truth)


@pytest.mark.footage
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LETTERBOXED)
def test_people_are_found_as_well_as_the_model_is_known_to(name: str, size: int, labelled: list[LabelledFrame]) -> None:
    scored = [people(name, *letterboxed(one.frame, size), one.truth) for one in labelled]
    assert average_precision(scored) == pytest.approx(LETTERBOXED[name][SIZES.index(size)], abs=TOLERANCE)


@pytest.mark.footage
@pytest.mark.parametrize(("name", "size"), STRETCHED)
def test_people_are_found_in_frames_stretched_by_the_decoder(
    name: str, size: int, labelled: list[LabelledFrame]
) -> None:
    scored = [people(name, *stretched(one.frame, size), one.truth) for one in labelled]
    assert average_precision(scored) == pytest.approx(STRETCHED[name, size], abs=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (320, 416)])
@pytest.mark.parametrize("name", SOURCES)
def test_an_image_gives_the_same_bits_in_every_batch(name: str, height: int, width: int) -> None:
    images = pictures(12, height, width)
    alone = [run(name, image[None]) for image in images]
    random = np.random.default_rng(3)
    for batch in (2, 3, 8, 12):
        members = random.permutation(len(images))[:batch]
        for output, together in enumerate(run(name, images[members])):
            np.testing.assert_array_equal(together, np.concatenate([alone[member][output] for member in members]))


@pytest.mark.parametrize("name", SOURCES)
def test_candidates_come_best_first_as_boxes_of_the_declared_types(name: str) -> None:
    boxes, scores, labels = run(name, pictures(2, 320, 416))
    assert (boxes.shape, scores.shape, labels.shape) == ((2, 256, 4), (2, 256), (2, 256))
    assert [output.dtype.name for output in (boxes, scores, labels)] == ["float32", "float32", "int64"]
    assert np.all(np.diff(scores.astype(np.float32), axis=1) <= 0)
    assert np.all((labels.astype(np.int64) >= 0) & (labels.astype(np.int64) < 80))
    assert np.all(boxes[..., 2:].astype(np.float32) >= boxes[..., :2].astype(np.float32))


@pytest.mark.parametrize("name", SOURCES)
def test_an_image_too_small_for_256_candidates_gives_those_it_has(name: str) -> None:
    _, scores, _ = run(name, pictures(1, 64, 64))
    assert 0 < scores.shape[1] < 256


@pytest.mark.parametrize("name", SOURCES)
def test_a_runtime_that_fixes_the_size_can_load_the_model(name: str) -> None:
    session(name)
    options = onnxruntime.SessionOptions()
    for dimension, length in (("n", 1), ("height", 224), ("width", 224)):
        options.add_free_dimension_override_by_name(dimension, length)
    path = default_repository() / name / "1" / "model.onnx"
    fixed = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert fixed.get_inputs()[0].shape == [1, 224, 224, 3]


@pytest.mark.parametrize("name", SOURCES)
def test_the_configuration_is_tritons_and_names_what_the_model_has(name: str) -> None:
    config = text_format.Parse(config_pbtxt(name), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 16)
    assert config.HasField("dynamic_batching")
    served = session(name)
    assert [one.name for one in config.input] == [one.name for one in served.get_inputs()]
    assert [one.name for one in config.output] == [one.name for one in served.get_outputs()]
    # Triton counts the dimensions of one item; the model has the batch before them.
    for declared, real in zip(config.output, served.get_outputs(), strict=True):
        assert len(declared.dims) == len(real.shape) - 1


def pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth random pictures: uint8 [count, height, width, 3]."""
    coarse = np.random.default_rng(5).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in coarse]).astype(
        np.uint8
    )
