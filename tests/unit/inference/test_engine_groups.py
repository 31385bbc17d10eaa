"""Which requests share a batch, and what the engine remembers of groups that are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
from skyscraper_inference import engine as engine_module
from skyscraper_inference.backends import Tensor, TensorSpec
from skyscraper_inference.engine import Engine
from skyscraper_inference.parameters import Parameters, ParameterSpec
from skyscraper_inference.repository import Model
from tritonclient.grpc import model_config_pb2

ROW = {"x": np.zeros((1, 1), np.float32)}


class Recorder:
    """Waits for a signal before its first batch, so that requests queue up; gives each row its batch's parameter."""

    platform = "recorder"
    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()
    parameters = (ParameterSpec("scale", float, 0, 1e9),)

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[tuple[int, Parameters]] = []

    def check(self, parameters: Parameters) -> None: ...

    def warm_up(self, inputs: Mapping[str, Tensor]) -> None: ...

    def run(self, inputs: Mapping[str, Tensor], parameters: Parameters) -> dict[str, Tensor]:
        self.go.wait(10)
        rows = len(inputs["x"])
        self.batches.append((rows, parameters))
        return {"y": np.full((rows, 1), parameters.get("scale", 0.0))}


def started() -> tuple[Engine, Model, Recorder]:
    recorder = Recorder()
    model = Model("m", "1", model_config_pb2.ModelConfig(), recorder, max_batch=8)
    return Engine(instances=1, queue_bytes=1 << 20, max_window_seconds=0.0), model, recorder


def test_requests_with_different_parameters_are_never_in_one_batch() -> None:
    engine, model, recorder = started()
    deadline = time.monotonic() + 20
    scales = [1.0, 2.0, 1.0, 2.0, 1.0, 3.0, 1.0]
    answers = [engine.submit(model, ROW, {"scale": scale}, deadline_seconds=deadline) for scale in scales]
    recorder.go.set()
    assert [float(answer.result(10).outputs["y"][0, 0]) for answer in answers] == scales
    assert engine.close(deadline_seconds=5)
    # The first may have gone alone; the others waited and were joined by parameter.
    assert len(recorder.batches) <= 4
    assert max(rows for rows, _ in recorder.batches) > 1


def test_groups_that_nobody_waits_in_are_forgotten_once_there_are_many() -> None:
    engine, model, recorder = started()
    recorder.go.set()
    for number in range(3 * engine_module._MAX_GROUPS):
        engine.submit(model, ROW, {"scale": float(number)}, deadline_seconds=time.monotonic() + 20).result(10)
    assert len(engine._queues) <= engine_module._MAX_GROUPS
    assert engine._queues.keys() == engine._fits.keys() == engine._rates.keys() == engine._max_rows.keys()
    assert engine.close(deadline_seconds=5)
