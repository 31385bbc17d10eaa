"""Darknet's YOLOv3-tiny to ONNX (Redmon and Farhadi, 2018: boxes, anchors and scores as in sections 2.1 to 2.3).

The network is small and its layout public, so the layers are written out here instead of parsing Darknet's .cfg,
which in the package at hand names wrong anchors for the last scale (0, 1, 2; the weights were trained with 1, 2, 3).
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from skyscraper.models.errors import ModelError
from skyscraper.models.graph import Graph

# Five int32: major, minor, revision, and images seen as int64.
_HEADER_BYTES = 20
_CLASSES = 80
_EPSILON = 1e-5  # of Darknet's batch normalisation
_LEAK = 0.1
# Width and height in pixels of the network's input, as trained.
_ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
_COARSE = (3, 4, 5)
_FINE = (1, 2, 3)


class _Weights:
    """Darknet's weight file: float32 values in the order of the layers."""

    def __init__(self, data: bytes) -> None:
        self._values = np.frombuffer(data, dtype="<f4", offset=_HEADER_BYTES)
        self._position = 0

    def take(self, *shape: int) -> NDArray[np.float32]:
        count = int(np.prod(shape))
        values = self._values[self._position : self._position + count]
        if len(values) < count:
            raise ModelError(f"the Darknet weights end after {len(self._values)} values, in the middle of a layer")
        self._position += count
        return values.reshape(shape).astype(np.float32)

    def finish(self) -> None:
        if self._position != len(self._values):
            raise ModelError(
                f"{len(self._values) - self._position} Darknet weights are left over: another network's file?"
            )


def convert_yolov3_tiny(data: bytes) -> onnx.ModelProto:
    """The detector from the bytes of `yolov3-tiny.weights`. Raises ModelError."""
    graph, weights = Graph(), _Weights(data)

    def convolve(x: str, into: int, out: int, size: int, *, normalised: bool = True) -> str:
        # Darknet stores bias (or beta), gamma, running mean and variance, then the kernel; normalisation is folded in.
        bias = weights.take(out)
        gamma, mean, variance = (weights.take(out) for _ in range(3)) if normalised else (None, None, None)
        kernel = weights.take(out, into, size, size)
        if gamma is not None and mean is not None and variance is not None:
            scale = gamma / np.sqrt(variance + _EPSILON)
            kernel, bias = kernel * scale[:, None, None, None], bias - mean * scale
        x = graph.node("Conv", [x, graph.constant(kernel), graph.constant(bias)], pads=[size // 2] * 4)
        return graph.node("LeakyRelu", [x], alpha=_LEAK) if normalised else x

    def halve(x: str) -> str:
        return graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])

    x = graph.node("Mul", [graph.images(), graph.floats(1 / 255)])
    into = 3
    for out in (16, 32, 64, 128):
        x = halve(convolve(x, into, out, 3))
        into = out
    fine = convolve(x, 128, 256, 3)
    x = convolve(halve(fine), 256, 512, 3)
    # A pooling of stride 1 that keeps the size, padded at the right and the lower edge only.
    x = graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])
    neck = convolve(convolve(x, 512, 1024, 3), 1024, 256, 1)
    outputs = 3 * (5 + _CLASSES)
    coarse_head = convolve(convolve(neck, 256, 512, 3), 512, outputs, 1, normalised=False)
    x = convolve(neck, 256, 128, 1)
    x = graph.node(
        "Resize",
        [x, "", graph.floats(1, 1, 2, 2)],
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    x = graph.node("Concat", [x, fine], axis=1)
    fine_head = convolve(convolve(x, 384, 256, 3), 256, outputs, 1, normalised=False)
    weights.finish()
    scales = [_scale(graph, coarse_head, 32, _COARSE), _scale(graph, fine_head, 16, _FINE)]
    raw, places, anchors = (graph.node("Concat", [scale[part] for scale in scales], axis=1) for part in range(3))
    probabilities = graph.node("Sigmoid", [graph.columns(raw, 4, 5 + _CLASSES)])
    scores = graph.node("Mul", [graph.columns(probabilities, 0, 1), graph.columns(probabilities, 1, 1 + _CLASSES)])
    best, labels, indices = graph.best_candidates(scores)
    raw, places, anchors = (graph.gather(tensor, indices) for tensor in (raw, places, anchors))
    stride = graph.columns(places, 2, 3)
    inside = graph.node("Sigmoid", [graph.columns(raw, 0, 2)])
    centre = graph.node("Mul", [graph.node("Add", [inside, graph.columns(places, 0, 2)]), stride])
    half = graph.node("Mul", [graph.node("Exp", [graph.columns(raw, 2, 4)]), anchors])
    boxes = graph.node("Concat", [graph.node("Sub", [centre, half]), graph.node("Add", [centre, half])], axis=2)
    return graph.model("yolov3-tiny", boxes=boxes, scores=best, labels=labels)


def _scale(graph: Graph, head: str, stride: int, anchors: tuple[int, ...]) -> tuple[str, str, str]:
    """One output scale as rows: raw values [n, A, 85], grid cell and stride [n, A, 3], half anchor sizes [n, A, 2]."""
    shape = graph.node("Shape", [head])
    batch, height, width = (graph.length(shape, axis) for axis in (0, 2, 3))
    count = graph.integers(len(anchors))
    split = graph.node("Concat", [batch, count, graph.integers(5 + _CLASSES), height, width], axis=0)
    cells = graph.node("Transpose", [graph.node("Reshape", [head, split])], perm=[0, 3, 4, 1, 2])
    raw = graph.node("Reshape", [cells, graph.integers(0, -1, 5 + _CLASSES)])
    # A grid of the same rows by broadcasting: [n, H, W, anchors, 3] and [n, H, W, anchors, 2].
    grid = graph.node("Concat", [batch, height, width, count], axis=0)
    zeros = graph.node("Expand", [graph.floats(0), grid])
    column = graph.node("Reshape", [graph.indices(shape, 3), graph.integers(1, 1, -1, 1)])
    row = graph.node("Reshape", [graph.indices(shape, 2), graph.integers(1, -1, 1, 1)])
    parts = [graph.node("Add", [zeros, part]) for part in (column, row, graph.floats(stride))]
    places = graph.node("Concat", [graph.node("Unsqueeze", [part, graph.integers(4)]) for part in parts], axis=4)
    sizes = np.array([_ANCHORS[anchor] for anchor in anchors], dtype=np.float32) / 2
    halves = graph.node("Add", [graph.node("Unsqueeze", [zeros, graph.integers(4)]), graph.constant(sizes)])
    return (
        raw,
        graph.node("Reshape", [places, graph.integers(0, -1, 3)]),
        graph.node("Reshape", [halves, graph.integers(0, -1, 2)]),
    )
