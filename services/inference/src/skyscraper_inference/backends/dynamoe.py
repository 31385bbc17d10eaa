"""Mixture-of-experts classifiers of the dynamoe library, with experts and capacity as request parameters.

All instances share one copy of the weights. A batch reads the plan once; what it showed is handed to the plan's policy
under a lock, and a new plan is built by a thread of its own: no batch waits for another or for a plan (decision 0042).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import structlog
from skyscraper.errors import ConfigError

from skyscraper_inference import metrics
from skyscraper_inference.backends.protocol import ModelFailed, Tensor, TensorSpec
from skyscraper_inference.parameters import BadParameter, Parameters, ParameterSpec

try:
    import torch
    from dynamoe import DynamoeError, Event
    from dynamoe.serve import Cause, ClassifierServer, Follow, LayerLoad, Served, cause
except ImportError as error:
    raise ConfigError(
        f"backend dynamoe: {error.name or error} is not installed here; install skyscraper-inference[dynamoe]"
    ) from error

log = structlog.get_logger()

IMAGES, PROBABILITIES = "images", "probabilities"
TOP_K, ACTIVE_EXPERTS, CAPACITY = "top_k", "active_experts", "capacity"
# Of a fair share. Below a hundredth nearly all is dropped; at 100 times it, nothing is, of up to 100 experts.
_LEAST_CAPACITY, _MOST_CAPACITY = 0.01, 100.0
# In config.pbtxt.
_FOLLOW, _INT8_ROWS = "follow", "int8_rows"


class DynamoeBackend:
    platform = "dynamoe_classifier"

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str]) -> None:
        """`settings` are the parameters of config.pbtxt: `follow` (words of Follow, default capacity) and `int8_rows`.
        Raises ConfigError."""
        unknown = sorted(settings.keys() - {_FOLLOW, _INT8_ROWS})
        if unknown:
            raise ConfigError(f"config.pbtxt: parameter {unknown[0]!r} is not known; there are {_FOLLOW}, {_INT8_ROWS}")
        try:
            follow = {Follow(word) for word in settings.get(_FOLLOW, Follow.CAPACITY).split()}
            self._server = ClassifierServer(folder, follow=follow, int8_rows=int(settings.get(_INT8_ROWS, "64")))
        except (DynamoeError, ImportError, ValueError) as error:
            raise ConfigError(f"{folder}: {error}") from error
        self._name = name
        self._own = threading.local()
        shape = self._server.shape
        self._k = shape.k
        self._experts = shape.experts
        self.inputs = [TensorSpec(IMAGES, np.dtype(np.uint8), (shape.height, shape.width, 3))]
        self.outputs = [TensorSpec(PROBABILITIES, np.dtype(np.float32), (len(shape.labels),))]
        self.parameters = [
            ParameterSpec(TOP_K, int, 1, shape.experts),
            ParameterSpec(ACTIVE_EXPERTS, int, 1, shape.experts),
            ParameterSpec(CAPACITY, float, _LEAST_CAPACITY, _MOST_CAPACITY),
        ]

    def check(self, parameters: Parameters) -> None:
        active = parameters.get(ACTIVE_EXPERTS, self._experts)
        if parameters.get(TOP_K, 1) > active:
            raise BadParameter(
                f"model {self._name}: {TOP_K} is {parameters[TOP_K]}, it is from 1 to {ACTIVE_EXPERTS}, here {active}"
            )

    def warm_up(self, inputs: Mapping[str, Tensor]) -> None:
        self._run(inputs, {}, learn=False)

    def run(self, inputs: Mapping[str, Tensor], parameters: Parameters) -> dict[str, Tensor]:
        served = self._run(inputs, parameters, learn=True)
        for number, layer in enumerate(served.layers):
            self._tell(str(number), layer)
        return {PROBABILITIES: served.probabilities}

    def _run(self, inputs: Mapping[str, Tensor], parameters: Parameters, *, learn: bool) -> Served:
        self._stay_on_this_thread()
        active = int(parameters.get(ACTIVE_EXPERTS, self._experts))
        try:
            return self._server.run(
                inputs[IMAGES],
                # The model's own k, where it says nothing else, gives way to a small number of experts.
                k=int(parameters.get(TOP_K, min(self._k, active))),
                active=active,
                capacity=parameters.get(CAPACITY),
                learn=learn,
            )
        except Exception as error:
            # torch raises RuntimeError and subclasses of it, without a common base of its own.
            raise ModelFailed(repr(error)) from error

    def _stay_on_this_thread(self) -> None:
        """One thread per batch, as with ONNX Runtime: the thread's CPU clock is then the work. torch counts per thread
        that calls it."""
        if not hasattr(self._own, "ready"):
            torch.set_num_threads(1)
            self._own.ready = True

    def _tell(self, layer: str, load: LayerLoad) -> None:
        for expert, count in enumerate(load.counts):
            if count:
                metrics.EXPERT_ROWS.labels(self._name, layer, str(expert)).inc(count)
        if load.dropped:
            metrics.DROPPED_ROWS.labels(self._name, "capacity").inc(load.dropped)
        if load.event is not None:
            self._tell_plan(layer, load.event)

    def _tell_plan(self, layer: str, event: Event) -> None:
        reason = cause(event)
        metrics.RECOMPILATIONS.labels(self._name, reason).inc()
        metrics.RECOMPILATION_SECONDS.labels(self._name).observe(event.build_seconds)
        say = log.warning if reason is Cause.FAILED else log.info
        say(
            "recompiled",
            model=self._name,
            layer=layer,
            reason=event.reason,
            build_seconds=round(event.build_seconds, 4),
            error=event.error,
        )
