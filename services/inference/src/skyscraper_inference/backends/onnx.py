"""ONNX Runtime.

On a CPU a session runs on the thread that calls it (one intra-op thread): several batches then run side by side, none
pays for threads waiting on each other, and the calling thread's CPU clock is exactly the work of its batch. It also
makes results independent of the batch a row came in: measured bitwise equal for batches of 1 to 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from skyscraper.errors import ConfigError

from skyscraper_inference.backends.protocol import ModelFailed, Tensor, TensorSpec
from skyscraper_inference.parameters import Parameters, ParameterSpec

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


class OnnxBackend:
    platform = "onnxruntime_onnx"
    parameters: Sequence[ParameterSpec] = ()

    def __init__(self, path: Path, execution_providers: Sequence[str]) -> None:
        """Raises ConfigError where the file is not a model that this ONNX Runtime can serve."""
        missing = set(execution_providers) - set(onnxruntime.get_available_providers())
        if missing:
            raise ConfigError(
                f"execution provider {sorted(missing)[0]} is not in this ONNX Runtime, which has "
                f"{', '.join(onnxruntime.get_available_providers())}"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Fatal only: what a client's input breaks is raised and answered, and the log of a service is JSON.
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(execution_providers))
        except Exception as error:
            # ONNX Runtime's exceptions share no base below Exception.
            raise ConfigError(f"{path} cannot be loaded: {error}") from error
        self.inputs = [_spec(node) for node in self._session.get_inputs()]
        self.outputs = [_spec(node) for node in self._session.get_outputs()]
        self._output_names = [spec.name for spec in self.outputs]

    def check(self, parameters: Parameters) -> None:
        """It has none."""

    def warm_up(self, inputs: Mapping[str, Tensor]) -> None:
        self.run(inputs, {})

    def run(self, inputs: Mapping[str, Tensor], parameters: Parameters) -> dict[str, Tensor]:
        try:
            values = self._session.run(self._output_names, dict(inputs))
        except Exception as error:
            raise ModelFailed(str(error)) from error
        return dict(zip(self._output_names, values, strict=True))


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise ConfigError(f"tensor {node.name} has type {node.type}, which is not served")
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape[1:])
    return TensorSpec(node.name, np.dtype(_DTYPES[node.type]), shape)
