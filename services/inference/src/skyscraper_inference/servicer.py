"""The Open Inference Protocol v2 over gRPC (KServe), with the stubs that Triton's client ships."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NoReturn

import grpc
import numpy as np
from skyscraper.errors import Overloaded, SkyscraperError
from skyscraper.rpc.burst import NOT_BEGUN, WORK_CORE_SECONDS
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from skyscraper_inference import metrics
from skyscraper_inference.backends import ModelFailed, Tensor, TensorSpec
from skyscraper_inference.engine import Answer, DeadlineGone, Draining, Engine
from skyscraper_inference.parameters import BadParameter, Parameters, read_parameters
from skyscraper_inference.repository import Model, Unavailable

# For a client that sets no deadline: nobody waits longer than this for a frame.
_DEFAULT_DEADLINE_SECONDS = 30.0
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


class _Refused(SkyscraperError):
    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class OipServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers for the models it is given. What it does not implement answers UNIMPLEMENTED by itself."""

    def __init__(
        self, engine: Engine, models: Mapping[str, Model], broken: Mapping[str, Unavailable], version: str
    ) -> None:
        self._engine = engine
        self._models = models
        self._broken = broken
        self._version = version

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the protocol's names
        return oip.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return oip.ServerReadyResponse(ready=not self._broken)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        model = self._models.get(request.name)
        return oip.ModelReadyResponse(ready=model is not None and request.version in ("", model.version))

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return oip.ServerMetadataResponse(
            name="skyscraper-inference", version=self._version, extensions=["model_repository"]
        )

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        model = self._model_or_abort(request.name, request.version, context)
        return oip.ModelMetadataResponse(
            name=model.name,
            versions=[model.version],
            platform=model.backend.platform,
            inputs=[_metadata(spec) for spec in model.backend.inputs],
            outputs=[_metadata(spec) for spec in model.backend.outputs],
        )

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return oip.ModelConfigResponse(config=self._model_or_abort(request.name, request.version, context).config)

    def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        entry = oip.RepositoryIndexResponse.ModelIndex
        ready = [entry(name=model.name, version=model.version, state="READY") for model in self._models.values()]
        broken = [entry(name=one.name, state="UNAVAILABLE", reason=one.reason) for one in self._broken.values()]
        return oip.RepositoryIndexResponse(models=ready if request.ready else [*ready, *broken])

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        known = request.model_name if request.model_name in self._models else "unknown"
        try:
            response = self._infer(request, context)
        except _Refused as error:
            self._refuse(known, error.code, str(error), context)
        except Overloaded as error:
            retry_after = str(round(error.retry_after_seconds * 1000))
            context.set_trailing_metadata((("retry-after-ms", retry_after), (NOT_BEGUN, "1")))
            self._refuse(known, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), context)
        except Draining as error:
            context.set_trailing_metadata(((NOT_BEGUN, "1"),))
            self._refuse(known, grpc.StatusCode.UNAVAILABLE, str(error), context)
        except DeadlineGone as error:
            context.set_trailing_metadata(((NOT_BEGUN, "1"),))
            self._refuse(known, grpc.StatusCode.DEADLINE_EXCEEDED, str(error), context)
        except FutureTimeoutError as error:
            self._refuse(known, grpc.StatusCode.DEADLINE_EXCEEDED, str(error) or "the deadline passed", context)
        except ModelFailed as error:
            self._refuse(known, grpc.StatusCode.INTERNAL, f"model {request.model_name} failed: {error}", context)
        metrics.REQUESTS.labels(known, "OK").inc()
        return response

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = self._model(request.model_name, request.model_version)
        inputs, parameters = _read_inputs(request, model), _read_parameters(request, model)
        remaining = context.time_remaining()
        seconds = _DEFAULT_DEADLINE_SECONDS if remaining is None else min(remaining, _DEFAULT_DEADLINE_SECONDS)
        future = self._engine.submit(model, inputs, parameters, deadline_seconds=time.monotonic() + seconds)
        answer = future.result(timeout=seconds)
        # Beside the answer too: the burst gateway settles dollars by it without parsing tensors.
        context.set_trailing_metadata(((WORK_CORE_SECONDS, repr(answer.work_core_seconds)),))
        return _response(request, model, answer)

    def _model(self, name: str, version: str) -> Model:
        model = self._models.get(name)
        if model is None:
            why = f": {self._broken[name].reason}" if name in self._broken else ""
            raise _Refused(
                grpc.StatusCode.NOT_FOUND,
                f"model {name!r} is not served here{why}; served are {', '.join(sorted(self._models)) or 'none'}",
            )
        if version not in ("", model.version):
            raise _Refused(
                grpc.StatusCode.NOT_FOUND, f"model {name} is served in version {model.version}, not {version}"
            )
        return model

    def _model_or_abort(self, name: str, version: str, context: grpc.ServicerContext) -> Model:
        try:
            return self._model(name, version)
        except _Refused as error:
            context.abort(error.code, str(error))

    def _refuse(self, model: str, code: grpc.StatusCode, message: str, context: grpc.ServicerContext) -> NoReturn:
        metrics.REQUESTS.labels(model, code.name).inc()
        context.abort(code, message)


def _read_inputs(request: Any, model: Model) -> dict[str, Tensor]:
    specs = {spec.name: spec for spec in model.backend.inputs}
    given = {tensor.name for tensor in request.inputs}
    if given != specs.keys():
        raise _bad(f"model {model.name} takes the inputs {sorted(specs)}, the request has {sorted(given)}")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise _bad(f"{len(request.inputs)} inputs but {len(raw)} raw_input_contents")
    inputs = {
        tensor.name: _read_input(tensor, raw[index] if raw else None, specs[tensor.name])
        for index, tensor in enumerate(request.inputs)
    }
    rows = {len(tensor) for tensor in inputs.values()}
    if len(rows) != 1:
        raise _bad(f"the inputs have different batch sizes: {sorted(rows)}")
    count = rows.pop()
    if not 1 <= count <= model.max_batch:
        raise _bad(f"model {model.name} takes 1 to {model.max_batch} rows per request, this one has {count}")
    return inputs


def _read_parameters(request: Any, model: Model) -> Parameters:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in request.parameters.items()}
    given = {name: getattr(request.parameters[name], choice) for name, choice in chosen.items() if choice is not None}
    try:
        parameters = read_parameters(model.name, model.backend.parameters, given)
        model.backend.check(parameters)
    except BadParameter as error:
        raise _bad(str(error)) from error
    return parameters


def _read_input(tensor: Any, raw: bytes | None, spec: TensorSpec) -> Tensor:
    wanted = np_to_triton_dtype(spec.dtype)
    shape = tuple(tensor.shape)
    if tensor.datatype != wanted:
        raise _bad(f"input {spec.name} wants {wanted}, got {tensor.datatype}")
    fits = len(shape) == len(spec.shape) + 1 and all(
        want in (-1, got) and got > 0 for want, got in zip(spec.shape, shape[1:], strict=True)
    )
    if not fits:
        raise _bad(
            f"input {spec.name} wants shape [n, {', '.join(map(str, spec.shape))}] (-1 is any), got {list(shape)}"
        )
    try:
        if raw is not None:
            return np.frombuffer(raw, dtype=triton_to_np_dtype(tensor.datatype)).reshape(shape)
        contents = getattr(tensor.contents, _CONTENTS[tensor.datatype])
        return np.array(contents, dtype=spec.dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise _bad(f"input {spec.name}: the data does not fill shape {list(shape)}: {error}") from error


def _response(request: Any, model: Model, answer: Answer) -> Any:
    wanted = [output.name for output in request.outputs] or list(answer.outputs)
    unknown = [name for name in wanted if name not in answer.outputs]
    if unknown:
        raise _bad(f"model {model.name} has no output {unknown[0]!r}; it has {sorted(answer.outputs)}")
    response = oip.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    response.parameters["skyscraper_work_core_seconds"].double_param = answer.work_core_seconds
    response.parameters["skyscraper_queue_seconds"].double_param = answer.queue_seconds
    response.parameters["skyscraper_batch_rows"].int64_param = answer.batch_rows
    for name in wanted:
        tensor = answer.outputs[name]
        response.outputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        response.raw_output_contents.append(tensor.tobytes())
    return response


def _metadata(spec: TensorSpec) -> Any:
    return oip.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=np_to_triton_dtype(spec.dtype), shape=[-1, *spec.shape]
    )


def _bad(message: str) -> _Refused:
    return _Refused(grpc.StatusCode.INVALID_ARGUMENT, message)
