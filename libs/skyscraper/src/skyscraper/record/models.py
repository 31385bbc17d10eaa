"""Models in this process, with the CPU seconds that every image took."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from skyscraper.errors import SkyscraperError
from skyscraper.models.repository import default_repository

Arrays = Mapping[str, NDArray[np.generic]]

# As the inference service batches on a CPU.
_BATCH_ROWS = 8


@dataclass(frozen=True)
class _Known:
    outputs: dict[str, NDArray[np.generic]]
    core_seconds: float


class MeteredModels:
    """A ModelClient without servers. An image that was seen before is not computed again, but it costs what it cost the
    first time: configurations that differ in the frame rate only share most of their images."""

    def __init__(self, repository: Path | None = None) -> None:
        self._repository = repository or default_repository()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._known: dict[bytes, _Known] = {}
        self._overhead_core_seconds = 0.0
        self._charged_core_seconds = 0.0

    def forget(self) -> None:
        """Forget all images, which hold memory; to be called between segments."""
        self._known.clear()

    def take(self) -> tuple[float, float]:
        """Since the last call: CPU seconds spent in `infer`, and those that the images asked for cost."""
        taken = self._overhead_core_seconds, self._charged_core_seconds
        self._overhead_core_seconds = self._charged_core_seconds = 0.0
        return taken

    def infer(self, model: str, inputs: Arrays, parameters: Mapping[str, int | float] | None = None) -> Arrays:
        if parameters:
            raise SkyscraperError(f"model {model}: offline, models without request parameters can be run")
        started = time.thread_time()
        session = self._session(model)
        (name, images), *others = inputs.items()
        if others:
            raise SkyscraperError(f"model {model}: offline, models with one input can be run; it has {len(inputs)}")
        keys = [_digest(model, image) for image in images]
        missing = [index for index, key in enumerate(keys) if key not in self._known]
        for start in range(0, len(missing), _BATCH_ROWS):
            rows = missing[start : start + _BATCH_ROWS]
            before = time.thread_time()
            outputs = session.run(None, {name: np.ascontiguousarray(images[rows])})
            each = (time.thread_time() - before) / len(rows)
            names = [output.name for output in session.get_outputs()]
            for position, row in enumerate(rows):
                found = {key: value[position] for key, value in zip(names, outputs, strict=True)}
                self._known[keys[row]] = _Known(found, each)
        told = [self._known[key] for key in keys]
        self._charged_core_seconds += sum(one.core_seconds for one in told)
        joined = {key: np.stack([one.outputs[key] for one in told]) for key in told[0].outputs} if told else {}
        self._overhead_core_seconds += time.thread_time() - started
        return joined

    def _session(self, model: str) -> onnxruntime.InferenceSession:
        if model not in self._sessions:
            path = self._repository / model / "1" / "model.onnx"
            if not path.exists():
                raise SkyscraperError(f"model {model} is not at {path}: run `python -m skyscraper.models` to fetch it")
            options = onnxruntime.SessionOptions()
            # One thread, as in the inference service: what is measured is CPU time, and streams run in parallel.
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self._sessions[model] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return self._sessions[model]


def _digest(model: str, image: NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(
        np.ascontiguousarray(image).tobytes(), digest_size=16, key=f"{model}{image.shape}".encode()
    ).digest()
