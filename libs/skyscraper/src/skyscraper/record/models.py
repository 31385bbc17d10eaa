"""Models in this process, with the CPU seconds that every image took."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from skyscraper.errors import SkyscraperError
from skyscraper.models.repository import default_repository

Arrays = Mapping[str, NDArray[np.generic]]
Parameters = Mapping[str, int | float]
OfflineModel = Callable[[Arrays, Parameters], Arrays]
"""Inputs and request parameters to outputs, on the calling thread. An image's outputs do not depend on the others."""
# Packages with models that are not ONNX bring a function of the repository's path under the model's name, which returns
# an OfflineModel.
ENTRY_POINTS = "skyscraper.offline_models"

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
        self._models: dict[str, OfflineModel] = {}
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

    def infer(self, model: str, inputs: Arrays, parameters: Parameters | None = None) -> Arrays:
        started = time.thread_time()
        run, given = self._model(model), dict(parameters or {})
        (name, images), *others = inputs.items()
        if others:
            raise SkyscraperError(f"model {model}: offline, models with one input can be run; it has {len(inputs)}")
        keys = [_digest(f"{model}{sorted(given.items())}", image) for image in images]
        missing = [index for index, key in enumerate(keys) if key not in self._known]
        for start in range(0, len(missing), _BATCH_ROWS):
            rows = missing[start : start + _BATCH_ROWS]
            before = time.thread_time()
            outputs = run({name: np.ascontiguousarray(images[rows])}, given)
            each = (time.thread_time() - before) / len(rows)
            for position, row in enumerate(rows):
                found = {key: value[position] for key, value in outputs.items()}
                self._known[keys[row]] = _Known(found, each)
        told = [self._known[key] for key in keys]
        self._charged_core_seconds += sum(one.core_seconds for one in told)
        joined = {key: np.stack([one.outputs[key] for one in told]) for key in told[0].outputs} if told else {}
        self._overhead_core_seconds += time.thread_time() - started
        return joined

    def _model(self, model: str) -> OfflineModel:
        if model not in self._models:
            brought = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
            load = brought[model].load() if model in brought else lambda repository: _onnx(model, repository)
            self._models[model] = load(self._repository)
        return self._models[model]


def _onnx(model: str, repository: Path) -> OfflineModel:
    path = repository / model / "1" / "model.onnx"
    if not path.exists():
        raise SkyscraperError(f"model {model} is not at {path}: run `python -m skyscraper.models` to fetch it")
    options = onnxruntime.SessionOptions()
    # One thread, as in the inference service: what is measured is CPU time, and streams run in parallel.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays, parameters: Parameters) -> Arrays:
        if parameters:
            raise SkyscraperError(f"model {model} has no parameter {min(parameters)!r}: it is ONNX")
        return dict(zip(names, session.run(None, dict(inputs)), strict=True))

    return run


def _digest(asked: str, image: NDArray[np.generic]) -> bytes:
    """Of an image, and of what is asked about it."""
    digest = hashlib.blake2b(f"{asked}{image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
