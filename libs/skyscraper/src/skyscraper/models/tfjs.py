"""TensorFlow.js graph models to ONNX: the few operators that the networks we use are made of.

TensorFlow lays images out as [n, H, W, C] and ONNX as [n, C, H, W]; every convolution is therefore wrapped in two
transpositions, which ONNX Runtime cancels against each other when it loads the model.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscraper.models.errors import ModelError
from skyscraper.models.graph import Graph


class TfjsGraph:
    """A parsed graph model, written into an ONNX graph on demand: only what the asked tensors need.

    `input_size` is the side of the square that the file was made for. Image sizes in it are turned into ratios, so
    that the ONNX graph takes any size.
    """

    def __init__(self, model_json: bytes, weights: bytes, graph: Graph, image: str, *, input_size: int) -> None:
        model = json.loads(model_json)
        self._nodes: dict[str, dict[str, Any]] = {node["name"]: node for node in model["modelTopology"]["node"]}
        self._values = _read_weights(model["weightsManifest"], weights)
        self._graph = graph
        self._tensors: dict[str, str] = {}
        # Height of each image tensor at the file's own input size, to tell an image size from a ratio.
        self._heights: dict[str, int] = {}
        for name, node in self._nodes.items():
            if node["op"] == "Placeholder":
                self._tensors[name] = image
                self._heights[image] = input_size

    def tensor(self, name: str) -> str:
        """The ONNX name of a TensorFlow tensor (`node` or `node:output`)."""
        if name not in self._tensors:
            node_name, _, output = name.partition(":")
            if output not in ("", "0"):
                self.tensor(node_name)
                self._tensors[name] = f"{self._tensors[node_name]}_{output}"
                self._heights[self._tensors[name]] = self._heights[self._tensors[node_name]]
            elif node_name in self._values:
                self._tensors[name] = self._graph.constant(self._values[node_name])
            else:
                self._write(self._nodes[node_name])
        return self._tensors[name]

    def _write(self, node: Mapping[str, Any]) -> None:
        writers: dict[str, Callable[[Mapping[str, Any], Sequence[str]], str]] = {
            "Add": self._add,
            "AddV2": self._add,
            "ConcatV2": self._concat,
            "Conv2D": self._convolve,
            "Identity": lambda _, inputs: self.tensor(inputs[0]),
            "LeakyRelu": self._leaky_relu,
            "MaxPool": self._max_pool,
            "Pad": self._pad,
            "PadV2": self._pad,
            "ResizeBilinear": self._resize,
            "Sigmoid": lambda _, inputs: self._same_size("Sigmoid", [self.tensor(inputs[0])]),
            "SplitV": self._split,
            "Transpose": self._transpose,
        }
        if node["op"] not in writers:
            raise ModelError(f"the TensorFlow.js operator {node['op']} (node {node['name']}) is not supported")
        attributes = {name: _plain(value) for name, value in node.get("attr", {}).items()}
        self._tensors[node["name"]] = writers[node["op"]](attributes, node.get("input", []))

    def _same_size(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        outputs = 2 if kind == "Split" else 1
        out = self._graph.node(kind, inputs, outputs=outputs, **attributes)
        self._heights[out] = self._heights[inputs[0]]
        return out

    def _add(self, _: Mapping[str, Any], inputs: Sequence[str]) -> str:
        return self._same_size("Add", [self.tensor(name) for name in inputs])

    def _leaky_relu(self, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        return self._same_size("LeakyRelu", [self.tensor(inputs[0])], alpha=float(attributes["alpha"]))

    def _concat(self, _: Mapping[str, Any], inputs: Sequence[str]) -> str:
        axis = int(self._values[inputs[-1]])
        return self._same_size("Concat", [self.tensor(name) for name in inputs[:-1]], axis=axis)

    def _transpose(self, _: Mapping[str, Any], inputs: Sequence[str]) -> str:
        return self._same_size("Transpose", [self.tensor(inputs[0])], perm=self._values[inputs[1]].tolist())

    def _split(self, _: Mapping[str, Any], inputs: Sequence[str]) -> str:
        sizes = self._graph.constant(self._values[inputs[1]].astype(np.int64))
        return self._same_size("Split", [self.tensor(inputs[0]), sizes], axis=int(self._values[inputs[2]]))

    def _pad(self, _: Mapping[str, Any], inputs: Sequence[str]) -> str:
        x, amounts = self.tensor(inputs[0]), self._values[inputs[1]]
        fill = float(self._values[inputs[2]]) if len(inputs) > 2 else 0.0
        out = self._graph.node(
            "Pad",
            [
                x,
                self._graph.integers(*amounts.T.ravel().tolist()),
                self._graph.constant(np.array(fill, dtype=np.float32)),
            ],
        )
        # Images are square and padded alike on all sides, whichever layout they are in.
        self._heights[out] = self._heights[x] + int(amounts.sum(axis=1).max())
        return out

    def _convolve(self, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        kernel = self._values[inputs[1]].transpose(3, 2, 0, 1)
        return self._windowed("Conv", attributes, inputs[0], kernel.shape[2], [self._graph.constant(kernel)])

    def _max_pool(self, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        size = attributes["ksize"][1]
        return self._windowed("MaxPool", attributes, inputs[0], size, [], kernel_shape=[size, size])

    def _windowed(
        self, kind: str, attributes: Mapping[str, Any], source: str, size: int, rest: Sequence[str], **extra: Any
    ) -> str:
        if attributes["padding"] != "VALID":
            raise ModelError(f"{kind} with padding {attributes['padding']} is not supported")
        x, stride = self.tensor(source), attributes["strides"][1]
        planes = self._graph.node("Transpose", [x], perm=[0, 3, 1, 2])
        result = self._graph.node(kind, [planes, *rest], strides=[stride, stride], **extra)
        out = self._graph.node("Transpose", [result], perm=[0, 2, 3, 1])
        self._heights[out] = (self._heights[x] - size) // stride + 1
        return out

    def _resize(self, attributes: Mapping[str, Any], inputs: Sequence[str]) -> str:
        if not attributes["half_pixel_centers"] or attributes["align_corners"]:
            raise ModelError("ResizeBilinear is supported with half-pixel centres only")
        x, height = self.tensor(inputs[0]), int(self._values[inputs[1]][0])
        ratio = height / self._heights[x]
        planes = self._graph.node("Transpose", [x], perm=[0, 3, 1, 2])
        resized = self._graph.node(
            "Resize",
            [planes, "", self._graph.floats(1, 1, ratio, ratio)],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        out = self._graph.node("Transpose", [resized], perm=[0, 2, 3, 1])
        self._heights[out] = height
        return out


def _read_weights(manifest: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, NDArray[Any]]:
    """Weights by name, as float32 or integers; those stored as float16 are widened."""
    values: dict[str, NDArray[Any]] = {}
    position = 0
    for group in manifest:
        for entry in group["weights"]:
            stored = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
            count = int(np.prod(entry["shape"]))
            end = position + count * stored.itemsize
            if end > len(data):
                raise ModelError(f"the TensorFlow.js weights end at {len(data)} bytes, before {entry['name']}")
            values[entry["name"]] = (
                np.frombuffer(data, stored, count, position).reshape(entry["shape"]).astype(np.dtype(entry["dtype"]))
            )
            position = end
    return values


def _plain(attribute: Mapping[str, Any]) -> Any:
    """A protobuf-JSON attribute as a plain value."""
    (kind, value), *_ = attribute.items()
    if kind == "s":
        return base64.b64decode(value).decode()
    if kind == "list":
        return [int(item) for item in value.get("i", [])]
    return value
