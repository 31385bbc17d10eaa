"""Stage models: a pipeline's stateless operators on whole segments, with the models of this process.

Everything runs on the thread that was given the request, one segment per core: the thread's CPU clock is the work of
decoding and detection together, as that of a model is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import structlog
from skyscraper.errors import BadSegment, ConfigError, SkyscraperError
from skyscraper.media.decode import decode_segment
from skyscraper.pipeline import Pipeline, configure
from skyscraper.rpc.errors import ModelUnavailable
from skyscraper.rpc.stage import REQUEST, RESULT, SEGMENT, StageError, bad_outputs, read_inputs, stage_outputs

from skyscraper_inference.backends.protocol import ModelFailed, Tensor, TensorSpec
from skyscraper_inference.parameters import BadParameter, Parameters, ParameterSpec, read_parameters
from skyscraper_inference.repository import Model

log = structlog.get_logger()

_BYTES = np.dtype(np.uint8)


class StageBackend:
    """Serves one pipeline."""

    platform = "skyscraper_stage"
    parameters: Sequence[ParameterSpec] = ()
    inputs: Sequence[TensorSpec] = (TensorSpec(SEGMENT, _BYTES, (-1,)), TensorSpec(REQUEST, _BYTES, (-1,)))
    outputs: Sequence[TensorSpec] = (TensorSpec(RESULT, _BYTES, (-1,)),)

    def __init__(self, pipeline: Pipeline, models: Mapping[str, Model]) -> None:
        self._pipeline = pipeline
        self._models = _LocalModels(models)

    def check(self, parameters: Parameters) -> None:
        """It has none: knobs are in the request itself."""

    def warm_up(self, inputs: Mapping[str, Tensor]) -> None:
        """Its models are warmed up on their own."""

    def run(self, inputs: Mapping[str, Tensor], parameters: Parameters) -> dict[str, Tensor]:
        pipeline = self._pipeline
        try:
            segment, request = read_inputs(inputs)
            if request.pipeline_version != pipeline.version:
                raise ModelFailed(
                    f"pipeline {pipeline.name} is at version {pipeline.version} here, asked for is "
                    f"{request.pipeline_version!r}"
                )
            configuration = configure(pipeline.knobs, request.configuration)
            expected = request.expected_frames if request.HasField("expected_frames") else None
            frames = decode_segment(segment, pipeline.sampling(configuration), expected_frames=expected)
            return {**stage_outputs(frames, pipeline.detect(frames, configuration, self._models))}
        except BadSegment as error:
            return {**bad_outputs(error)}
        except (ConfigError, StageError, ModelUnavailable) as error:
            raise ModelFailed(str(error)) from error
        except SkyscraperError:
            raise
        except Exception as error:
            log.exception("pipeline_raised", pipeline=pipeline.name)
            return {**bad_outputs(BadSegment("pipeline_raised", f"pipeline {pipeline.name} raised {error!r}"))}


class _LocalModels:
    """A ModelClient over the models beside it."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def infer(
        self, model: str, inputs: Mapping[str, Tensor], parameters: Mapping[str, int | float] | None = None
    ) -> dict[str, Tensor]:
        served = self._models.get(model)
        if served is None:
            raise ModelUnavailable(f"model {model} is not served beside its stage; served are {sorted(self._models)}")
        try:
            read = read_parameters(model, served.backend.parameters, parameters or {})
            served.backend.check(read)
        except BadParameter as error:
            raise BadSegment("model_refused", str(error)) from error
        rows = len(next(iter(inputs.values())))
        parts = [
            served.backend.run(
                {name: tensor[start : start + served.max_batch] for name, tensor in inputs.items()}, read
            )
            for start in range(0, rows, served.max_batch)
        ]
        return (
            parts[0] if len(parts) == 1 else {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
        )
