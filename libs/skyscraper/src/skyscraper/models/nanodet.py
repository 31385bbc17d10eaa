"""NanoDet-g (RangiLyu, 2021) to ONNX: the backbone and the head from TensorFlow.js, the box decoding written here.

The head gives for every cell of three grids 80 class scores and, for each side of a box, a distribution over 11
distances (generalised focal loss, Li et al. 2020, section 3.2); the expected distance times the stride is the side.
"""

from __future__ import annotations

import numpy as np
import onnx

from skyscraper.models.graph import Graph
from skyscraper.models.tfjs import TfjsGraph

_INPUT_SIZE = 416
_CLASSES = 80
_DISTANCES = 11
# ImageNet's mean and deviation in the order the network was trained in: blue, green, red.
_MEAN_BGR = (103.53, 116.28, 123.675)
_DEVIATION_BGR = (57.375, 57.12, 58.395)
# Stride of the grid, tensor of its class scores, tensor of its distance distributions.
_LEVELS = (
    (8, "PartitionedCall/onnx_tf_prefix_Sigmoid_154", "PartitionedCall/onnx_tf_prefix_Split_153:1"),
    (16, "PartitionedCall/onnx_tf_prefix_Sigmoid_165", "PartitionedCall/onnx_tf_prefix_Split_164:1"),
    (32, "PartitionedCall/onnx_tf_prefix_Sigmoid_176", "PartitionedCall/onnx_tf_prefix_Split_175:1"),
)


def convert_nanodet(model_json: bytes, weights: bytes) -> onnx.ModelProto:
    """The detector from `nanodet.json` and `nanodet.bin`. Raises ModelError."""
    graph = Graph()
    bgr = graph.node("Gather", [graph.images(), graph.integers(2, 1, 0)], axis=1)
    mean, deviation = (
        graph.constant(np.array(values, dtype=np.float32).reshape(1, 3, 1, 1)) for values in (_MEAN_BGR, _DEVIATION_BGR)
    )
    image = graph.node("Div", [graph.node("Sub", [bgr, mean]), deviation])
    network = TfjsGraph(model_json, weights, graph, image, input_size=_INPUT_SIZE)
    scores, distances, centres = [], [], []
    for stride, score_name, distance_name in _LEVELS:
        score = network.tensor(score_name)
        scores.append(_as_rows(graph, score, _CLASSES))
        distances.append(_as_rows(graph, network.tensor(distance_name), 4 * _DISTANCES))
        centres.append(_centres(graph, score, stride))
    best, labels, indices = graph.best_candidates(graph.node("Concat", scores, axis=1))
    distance = graph.gather(graph.node("Concat", distances, axis=1), indices)
    centre = graph.gather(graph.node("Concat", centres, axis=1), indices)
    # [n, K, 4, 11] -> expected distance [n, K, 4] in strides.
    split = graph.node("Reshape", [distance, graph.integers(0, -1, 4, _DISTANCES)])
    steps = graph.constant(np.arange(_DISTANCES, dtype=np.float32).reshape(_DISTANCES, 1))
    expected = graph.node("MatMul", [graph.node("Softmax", [split], axis=3), steps])
    sides = graph.node("Squeeze", [expected, graph.integers(3)])
    place, stride_column = (graph.columns(centre, start, stop) for start, stop in ((0, 2), (2, 3)))
    sides = graph.node("Mul", [sides, stride_column])
    boxes = graph.node(
        "Concat",
        [
            graph.node("Sub", [place, graph.columns(sides, 0, 2)]),
            graph.node("Add", [place, graph.columns(sides, 2, 4)]),
        ],
        axis=2,
    )
    return graph.model("nanodet-g", boxes=boxes, scores=best, labels=labels)


def _as_rows(graph: Graph, planes: str, channels: int) -> str:
    """[n, C, H, W] -> [n, H * W, C]"""
    return graph.node("Transpose", [graph.node("Reshape", [planes, graph.integers(0, channels, -1)])], perm=[0, 2, 1])


def _centres(graph: Graph, planes: str, stride: int) -> str:
    """Of every cell: x and y of its centre in input pixels, and the stride. [n, H * W, 3]"""
    shape = graph.node("Shape", [planes])
    batch, height, width = (graph.length(shape, axis) for axis in (0, 2, 3))
    zeros = graph.node("Expand", [graph.floats(0), graph.node("Concat", [batch, height, width], axis=0)])
    column, row = (
        graph.node("Mul", [graph.node("Add", [graph.indices(shape, axis), graph.floats(0.5)]), graph.floats(stride)])
        for axis in (3, 2)
    )
    column = graph.node("Reshape", [column, graph.integers(1, 1, -1)])
    row = graph.node("Reshape", [row, graph.integers(1, -1, 1)])
    parts = [graph.node("Add", [zeros, part]) for part in (column, row, graph.floats(stride))]
    cells = graph.node("Concat", [graph.node("Unsqueeze", [part, graph.integers(3)]) for part in parts], axis=3)
    return graph.node("Reshape", [cells, graph.integers(0, -1, 3)])
