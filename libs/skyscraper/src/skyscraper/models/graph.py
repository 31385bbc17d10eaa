"""Writing an ONNX graph node by node, and the parts every detector shares: what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# What an opset is to ONNX; 17 is read by every runtime of the last years, Triton's included.
_OPSET = 17
# Candidates per image after the best-first cut. The busiest street frame has far fewer objects, and each object gives
# up to a dozen candidates before suppression.
CANDIDATES = 256


class Graph:
    """An ONNX graph under construction. Tensors are named by strings."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0

    def node(self, kind: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return its first output's name; the others are that name with `_1`, `_2` ... behind it."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        self._count += 1
        name = f"constant_{self._count}"
        # Not ascontiguousarray, which would make a vector of a scalar; Range and Pad take scalars only.
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, dtype=np.float32))

    def images(self) -> str:
        """The graph's input as float32 [n, 3, H, W], RGB, 0 to 255."""
        cast = self.node("Cast", ["images"], to=TensorProto.FLOAT)
        return self.node("Transpose", [cast], perm=[0, 3, 1, 2])

    def best_candidates(self, scores: str) -> tuple[str, str, str]:
        """From class scores [n, A, C]: the best anchors' scores [n, K], labels [n, K] and indices [n, K, 1].

        K is CANDIDATES, or A where an image is so small that it has fewer anchors. Anchors of equal score come in
        their own order, so that a result does not depend on the batch it came in.
        """
        best = self.node("ReduceMax", [scores], axes=[2], keepdims=0)
        anchors = self.length(self.node("Shape", [best]), 1)
        count = self.node("Min", [anchors, self.integers(CANDIDATES)])
        top = self.node("TopK", [best, count], outputs=2, axis=1, largest=1, sorted=1)
        labels = self.node("ArgMax", [scores], axis=2, keepdims=0)
        picked = self.node("GatherElements", [labels, f"{top}_1"], axis=1)
        return top, picked, self.node("Unsqueeze", [f"{top}_1", self.integers(2)])

    def gather(self, values: str, indices: str) -> str:
        """The rows of `values` [n, A, D] that `indices` [n, K, 1] name: [n, K, D]."""
        return self.node("GatherND", [values, indices], batch_dims=1)

    def columns(self, values: str, start: int, stop: int) -> str:
        """`values[:, :, start:stop]`"""
        return self.node("Slice", [values, self.integers(start), self.integers(stop), self.integers(2)])

    def length(self, shape: str, axis: int) -> str:
        """One entry of a shape, as a vector of one: what shapes are put together from."""
        return self.node("Slice", [shape, self.integers(axis), self.integers(axis + 1)])

    def indices(self, shape: str, axis: int) -> str:
        """0, 1, 2 ... for every place along an axis of a shape, float32."""
        zero, one, place = (self.constant(np.array(value, dtype=np.int64)) for value in (0, 1, axis))
        count = self.node("Gather", [shape, place])
        return self.node("Cast", [self.node("Range", [zero, count, one])], to=TensorProto.FLOAT)

    def model(self, name: str, *, boxes: str, scores: str, labels: str) -> onnx.ModelProto:
        """The finished detector, checked."""
        for output, tensor in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            self._nodes.append(helper.make_node("Identity", [tensor], [output], name=output))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", "candidates", 4]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "candidates"]),
                helper.make_tensor_value_info("labels", TensorProto.INT64, ["n", "candidates"]),
            ],
            self._constants,
        )
        model = helper.make_model(
            graph, producer_name="skyscraper", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8
        )
        onnx.checker.check_model(model)
        return model
