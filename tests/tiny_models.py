"""Models of a few nodes in Triton's layout, each with one property that a test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_SEED = 4
# What one row of `slow` multiplies: about half a second on one core, far longer than a client needs to send requests.
_SLOW_SIDE = 1024
_SLOW_PRODUCTS = 24
# Floats in a row of `slow`: 4 KiB, so that names and framing do not matter when bytes are counted.
SLOW_WIDTH = 1024


def write_repository(folder: Path, *names: str) -> Path:
    """Lay the named models out under `folder`; `broken` is a file that no ONNX Runtime can load."""
    for name in names:
        place = folder / name
        (place / "1").mkdir(parents=True)
        rows = 1 if name == "slow" else 8
        (place / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {rows}\n')
        content = b"not a model" if name == "broken" else _MODELS[name]().SerializeToString()
        (place / "1" / "model.onnx").write_bytes(content)
    return folder


def _echo() -> onnx.ModelProto:
    """Gives back what it is given: one tensor each of FP32, INT64 and BOOL."""
    kinds = {"floats": (TensorProto.FLOAT, 4), "counts": (TensorProto.INT64, 2), "flags": (TensorProto.BOOL, 2)}
    return _model(
        [helper.make_node("Identity", [name], [f"same_{name}"]) for name in kinds],
        [helper.make_tensor_value_info(name, kind, ["n", size]) for name, (kind, size) in kinds.items()],
        [helper.make_tensor_value_info(f"same_{name}", kind, ["n", size]) for name, (kind, size) in kinds.items()],
    )


def _picture() -> onnx.ModelProto:
    """A convolution over uint8 pictures of any size: real arithmetic, in which an order of summation would show."""
    kernel = np.random.default_rng(_SEED).standard_normal((8, 3, 5, 5)).astype(np.float32)
    return _model(
        [
            helper.make_node("Cast", ["images"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["wide"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "kernel"], ["features"]),
            helper.make_node("ReduceMean", ["features"], ["means"], axes=[2, 3], keepdims=0),
        ],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])],
        [helper.make_tensor_value_info("means", TensorProto.FLOAT, ["n", 8])],
        {"kernel": kernel},
    )


def _lookup() -> onnx.ModelProto:
    """Fails while it runs where an index is outside its table of four."""
    return _model(
        [helper.make_node("Gather", ["table", "indices"], ["values"])],
        [helper.make_tensor_value_info("indices", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 1])],
        {"table": np.arange(4, dtype=np.float32) * 10},
    )


def _slow() -> onnx.ModelProto:
    """Takes long enough for others to queue up behind it."""
    # So scaled, products stay as large as they are: ever smaller ones end as denormal numbers, with which some
    # processors take twenty times as long.
    side = np.random.default_rng(_SEED).standard_normal((_SLOW_SIDE, _SLOW_SIDE)) / _SLOW_SIDE**0.5
    products = [
        helper.make_node("MatMul", [f"product_{index}", "side"], [f"product_{index + 1}"])
        for index in range(_SLOW_PRODUCTS)
    ]
    return _model(
        [
            helper.make_node("ReduceMean", ["x"], ["scale"], keepdims=0),
            helper.make_node("Mul", ["side", "scale"], ["product_0"]),
            *products,
            helper.make_node("ReduceMean", [f"product_{_SLOW_PRODUCTS}"], ["mean"], keepdims=0),
            helper.make_node("Add", ["x", "mean"], ["y"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SLOW_WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SLOW_WIDTH])],
        {"side": side.astype(np.float32)},
    )


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[np.float32]] | None = None,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "tiny", list(inputs), list(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


_MODELS = {"echo": _echo, "picture": _picture, "lookup": _lookup, "slow": _slow}
