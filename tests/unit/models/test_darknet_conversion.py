"""Our writing of YOLOv3-tiny against OpenCV's reader of the same weight file: two programs, one network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from skyscraper.models.darknet import convert_yolov3_tiny
from skyscraper.models.errors import ModelError

SIZE = 96
CLASSES = 80
# Filters and kernel size of the convolutions before the first head.
BACKBONE = ((16, 3), (32, 3), (64, 3), (128, 3), (256, 3), (512, 3), (1024, 3), (256, 1), (512, 3))
ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


def convolution(filters: int, size: int, *, head: bool = False) -> str:
    normalised = "activation=linear" if head else "batch_normalize=1\nactivation=leaky"
    return f"[convolutional]\nfilters={filters}\nsize={size}\nstride=1\npad=1\n{normalised}\n"


def pooling(stride: int) -> str:
    return f"[maxpool]\nsize=2\nstride={stride}\n"


def yolo(mask: str) -> str:
    # OpenCV sets scores below `thresh` to zero; here all are compared.
    return f"[yolo]\nmask={mask}\nanchors={ANCHORS}\nclasses={CLASSES}\nnum=6\nthresh=0\n"


def configuration() -> str:
    parts = [f"[net]\nwidth={SIZE}\nheight={SIZE}\nchannels=3\n"]
    for index, (filters, size) in enumerate(BACKBONE):
        parts.append(convolution(filters, size))
        if index < 6:
            parts.append(pooling(1 if index == 5 else 2))
    parts += [convolution(255, 1, head=True), yolo("3,4,5"), "[route]\nlayers=-4\n", convolution(128, 1)]
    parts += ["[upsample]\nstride=2\n", "[route]\nlayers=-1,8\n", convolution(256, 3)]
    parts += [convolution(255, 1, head=True), yolo("1,2,3")]
    return "\n".join(parts)


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A weight file with made-up values, scaled so that every layer's output stays about as large as its input."""
    random = np.random.default_rng(11)
    # Version 0.2, the first that counts the images seen in 64 bits.
    parts = [np.array([0, 2, 0, 0, 0], dtype="<i4").tobytes()]
    depths = (3, *(filters for filters, _ in BACKBONE))
    shapes = [(filters, into, size, True) for (filters, size), into in zip(BACKBONE, depths[:-1], strict=True)]
    shapes += [(255, 512, 1, False), (128, 256, 1, True), (256, 384, 3, True), (255, 256, 1, False)]
    for out, into, size, normalised in shapes:
        vectors = [random.normal(0, 0.1, out)]
        if normalised:
            vectors += [random.uniform(0.8, 1.2, out), random.normal(0, 0.1, out), random.uniform(0.5, 1.5, out)]
        kernel = random.normal(0, (1 / (into * size * size)) ** 0.5, (out, into, size, size))
        parts += [values.astype("<f4").tobytes() for values in (*vectors, kernel)]
    return b"".join(parts)


def by_opencv(weights: bytes, image: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Rows of centre x, y, width, height (0 to 1), objectness and 80 class scores, as OpenCV orders them."""
    (folder / "net.cfg").write_text(configuration())
    (folder / "net.weights").write_bytes(weights)
    net = cv2.dnn.readNetFromDarknet(str(folder / "net.cfg"), str(folder / "net.weights"))
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255))
    rows: NDArray[np.float32] = np.concatenate(net.forward(net.getUnconnectedOutLayersNames()))
    return rows


def by_us(weights: bytes, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(convert_yolov3_tiny(weights).SerializeToString())
    return [output[0] for output in session.run(["boxes", "scores", "labels"], {"images": image[None]})]


def test_the_same_candidates_as_opencv(weights: bytes, tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    rows = by_opencv(weights, image, tmp_path)
    boxes, scores, labels = by_us(weights, image)
    assert len(scores) == len(rows) == 3 * (3 * 3 + 6 * 6)
    order = np.argsort(-rows[:, 5:].max(axis=1), kind="stable")
    rows = rows[order]
    np.testing.assert_allclose(scores, rows[:, 5:].max(axis=1), rtol=1e-3, atol=1e-5)
    # Neighbours whose scores differ by rounding alone may stand in either order.
    clear = np.abs(np.diff(scores, prepend=2.0)) > 1e-4
    clear &= np.append(clear[1:], True)
    assert clear.sum() > 50
    np.testing.assert_array_equal(labels[clear], rows[clear, 5:].argmax(axis=1))
    centre, half = rows[:, 0:2] * SIZE, rows[:, 2:4] * SIZE / 2
    expected = np.concatenate([centre - half, centre + half], axis=1)
    np.testing.assert_allclose(boxes[clear], expected[clear], rtol=1e-3, atol=0.05)


def test_weights_that_end_early_are_refused(weights: bytes) -> None:
    with pytest.raises(ModelError, match="in the middle of a layer"):
        convert_yolov3_tiny(weights[:-4])


def test_weights_of_a_larger_network_are_refused(weights: bytes) -> None:
    with pytest.raises(ModelError, match="2 Darknet weights are left over"):
        convert_yolov3_tiny(weights + bytes(8))
