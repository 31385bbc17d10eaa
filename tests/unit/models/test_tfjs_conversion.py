"""The TensorFlow.js operators we translate, on tiny made-up graphs, against the operators written out in numpy."""

from __future__ import annotations

import base64
import json
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from skyscraper.models.errors import ModelError
from skyscraper.models.graph import Graph
from skyscraper.models.tfjs import TfjsGraph

# The size the made-up files were made for, and another one that the ONNX graph has to take too.
FILE_SIZE = 8
SIZES = (FILE_SIZE, 14)

Node = dict[str, Any]
Constants = dict[str, NDArray[Any]]

RANDOM = np.random.default_rng(4)
# Three colours to the four channels that every made-up graph ends with.
MIX = RANDOM.normal(size=(1, 1, 3, 4)).astype(np.float32)


def node(name: str, op: str, *inputs: str, **attributes: Any) -> Node:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def listed(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def convolution(name: str, source: str, kernel: str, stride: int = 1, padding: str = "VALID") -> Node:
    return node(name, "Conv2D", source, kernel, strides=listed(1, stride, stride, 1), padding=text(padding))


def parsed(graph: Graph, nodes: list[Node], constants: Constants, *, stored: str = "float32") -> TfjsGraph:
    """A graph model that begins with `mixed`, the image [n, H, W, 4]; floats lie in the file as `stored`."""
    constants = {"to_last": np.array([0, 2, 3, 1], np.int32), "mix": MIX, **constants}
    entries, data = [], b""
    for name, value in constants.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if value.dtype == np.float32 and stored != "float32":
            entry["quantization"] = {"dtype": stored, "original_dtype": "float32"}
            data += value.astype(stored).tobytes()
        else:
            data += value.tobytes()
        entries.append(entry)
    first = [node("x", "Placeholder"), node("last", "Transpose", "x", "to_last"), convolution("mixed", "last", "mix")]
    model = {"modelTopology": {"node": first + nodes}, "weightsManifest": [{"weights": entries}]}
    return TfjsGraph(json.dumps(model).encode(), data, graph, graph.images(), input_size=FILE_SIZE)


def run(result: str, image: NDArray[np.uint8], nodes: list[Node], constants: Constants, **kwargs: Any) -> Any:
    """`result` [n, h, w, 4] as rows: [n, h * w, 4]."""
    graph = Graph()
    tensor = parsed(graph, nodes, constants, **kwargs).tensor(result)
    rows = graph.node("Reshape", [tensor, graph.integers(0, -1, 4)])
    best = graph.node("ReduceMax", [rows], axes=[2], keepdims=0)
    labels = graph.node("ArgMax", [rows], axis=2, keepdims=0)
    model = graph.model("made-up", boxes=rows, scores=best, labels=labels)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["boxes"], {"images": image})[0]


def picture(size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(6).integers(0, 9, (2, size, size, 3), dtype=np.uint8)


def mixed(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = image.astype(np.float32) @ MIX[0, 0]
    return result


def same(found: NDArray[np.float32], expected: NDArray[np.floating[Any]], tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected.reshape(len(expected), -1, 4), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_a_padded_convolution_with_a_stride(size: int) -> None:
    kernel = RANDOM.normal(size=(3, 3, 4, 4)).astype(np.float32)
    nodes = [node("padded", "Pad", "mixed", "amounts"), convolution("out", "padded", "kernel", stride=2)]
    amounts = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    x = np.pad(mixed(picture(size)), amounts)
    out = [
        [np.einsum("nhwc,hwcd->nd", x[:, row : row + 3, column : column + 3], kernel) for column in range(0, size, 2)]
        for row in range(0, size, 2)
    ]
    expected = np.array(out, np.float32).transpose(2, 0, 1, 3)
    same(run("out", picture(size), nodes, {"amounts": amounts, "kernel": kernel}), expected)


@pytest.mark.parametrize("size", SIZES)
def test_a_pooling_over_a_border_filled_with_a_value(size: int) -> None:
    nodes = [
        node("padded", "PadV2", "mixed", "amounts", "fill"),
        node("out", "MaxPool", "padded", ksize=listed(1, 2, 2, 1), strides=listed(1, 2, 2, 1), padding=text("VALID")),
    ]
    amounts = np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)
    x = np.pad(mixed(picture(size)), amounts, constant_values=-1e3)
    half = size // 2 + 1
    expected = x.reshape(2, half, 2, half, 2, 4).max(axis=(2, 4))
    same(run("out", picture(size), nodes, {"amounts": amounts, "fill": np.array(-1e3, np.float32)}), expected)


@pytest.mark.parametrize("size", SIZES)
def test_an_enlargement_follows_the_size_of_the_image(size: int) -> None:
    nodes = [
        node("out", "ResizeBilinear", "mixed", "to", half_pixel_centers={"b": True}, align_corners={"b": False}),
    ]
    expected = np.stack([cv2.resize(one, (2 * size, 2 * size)) for one in mixed(picture(size))]).astype(np.float32)
    same(run("out", picture(size), nodes, {"to": np.array([2 * FILE_SIZE, 2 * FILE_SIZE], np.int32)}), expected, 1e-3)


def test_parts_that_are_split_join_in_another_order() -> None:
    nodes = [
        node("parts", "SplitV", "mixed", "sizes", "axis"),
        node("second", "Identity", "parts:1"),
        node("out", "ConcatV2", "second", "parts", "axis"),
    ]
    constants: Constants = {"sizes": np.array([1, 3], np.int32), "axis": np.array(3, np.int32)}
    same(run("out", picture(8), nodes, constants), mixed(picture(8))[..., [1, 2, 3, 0]])


def test_a_sum_through_both_activations() -> None:
    nodes = [
        node("leaky", "LeakyRelu", "mixed", alpha={"f": 0.25}),
        node("soft", "Sigmoid", "mixed"),
        node("out", "AddV2", "leaky", "soft"),
    ]
    x = mixed(picture(8))
    same(run("out", picture(8), nodes, {}), np.where(x > 0, x, 0.25 * x) + 1 / (1 + np.exp(-x)))


def test_weights_kept_as_half_floats_are_widened() -> None:
    rounded = MIX.astype(np.float16).astype(np.float32)[0, 0]
    same(run("mixed", picture(8), [], {}, stored="float16"), picture(8).astype(np.float32) @ rounded)


def test_an_unknown_operator_is_named() -> None:
    network = parsed(Graph(), [node("out", "FloorMod", "mixed", "mixed")], {})
    with pytest.raises(ModelError, match=r"operator FloorMod \(node out\) is not supported"):
        network.tensor("out")


def test_an_unsupported_padding_is_named() -> None:
    network = parsed(Graph(), [convolution("out", "mixed", "mix", padding="SAME")], {})
    with pytest.raises(ModelError, match="Conv with padding SAME"):
        network.tensor("out")


def test_weights_that_end_early_name_the_tensor() -> None:
    entry = {"name": "mix", "shape": [2], "dtype": "float32"}
    model = json.dumps({"modelTopology": {"node": []}, "weightsManifest": [{"weights": [entry]}]}).encode()
    with pytest.raises(ModelError, match="end at 7 bytes, before mix"):
        TfjsGraph(model, bytes(7), Graph(), "images", input_size=FILE_SIZE)
