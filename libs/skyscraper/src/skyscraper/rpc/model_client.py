"""The decoder's way to served models: the Open Inference Protocol v2, against our server, Triton or any other."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from skyscraper.errors import BadSegment, Overloaded
from skyscraper.rpc.errors import InferenceUnreachable, ModelUnavailable

# A frame of 1920 x 1080 is 6 MB; eight of them and their answer fit.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_FIRST_BACKOFF_SECONDS = 0.05
_LAST_BACKOFF_SECONDS = 1.0
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


def open_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel that all streams of a process share. `dns:///name:port` balances over every address of the name."""
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.lb_policy_name", "round_robin"),
        # A server that restarts is found again within a second; gRPC's default grows to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # A connection that died without a word (a spot node taken away) is noticed within seconds.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if credentials is not None:
        return grpc.secure_channel(target, credentials, options)
    return grpc.insecure_channel(target, options)


class OipModelClient:
    """One stream's client over a shared channel. Not shared between threads."""

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        max_rows: int,
        call_seconds: float,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._max_rows = max_rows
        self._call_seconds = call_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._sleep = sleep
        self._work_core_seconds = 0.0

    def take_work_core_seconds(self) -> float:
        """CPU seconds the servers reported since the last call."""
        work, self._work_core_seconds = self._work_core_seconds, 0.0
        return work

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[np.generic]],
        parameters: Mapping[str, int | float] | None = None,
    ) -> dict[str, NDArray[np.generic]]:
        """Run `model` on a batch of any size: pieces of at most `max_rows` go out together, answers come in order.

        Busy and absent servers are tried again until `retry_seconds` are over. Raises BadSegment (`model_refused`,
        `model_failed`), ModelUnavailable, Overloaded or InferenceUnreachable.
        """
        deadline = self._clock() + self._retry_seconds
        rows = len(next(iter(inputs.values())))
        pieces = (
            {name: tensor[start : start + self._max_rows] for name, tensor in inputs.items()}
            for start in range(0, rows, self._max_rows)
        )
        requests = [_request(model, piece, parameters or {}) for piece in pieces]
        try:
            calls = [self._stub.ModelInfer.future(request, timeout=self._call_seconds) for request in requests]
        except ValueError as error:
            # What gRPC raises once the channel was closed: this process is about to end.
            raise InferenceUnreachable(f"model {model}: {error}") from error
        try:
            answers = [self._finish(request, call, deadline) for request, call in zip(requests, calls, strict=True)]
        except BaseException:
            for call in calls:
                call.cancel()
            raise
        return _joined(answers)

    def _finish(self, request: Any, call: Any, deadline: float) -> dict[str, NDArray[np.generic]]:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                response = call.result()
            except grpc.RpcError as error:
                if error.code() not in _RETRIED or self._clock() + backoff >= deadline:
                    raise _translated(request.model_name, error) from error
                self._sleep(max(_retry_after_seconds(error), random.uniform(0, backoff)))  # noqa: S311 - jitter
                backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)
                call = self._stub.ModelInfer.future(request, timeout=self._call_seconds)
            else:
                self._work_core_seconds += response.parameters["skyscraper_work_core_seconds"].double_param
                return _read(response)


def _request(model: str, inputs: Mapping[str, NDArray[np.generic]], parameters: Mapping[str, int | float]) -> Any:
    request = oip.ModelInferRequest(model_name=model)
    for name, value in parameters.items():
        if isinstance(value, int):
            request.parameters[name].int64_param = value
        else:
            request.parameters[name].double_param = value
    for name, tensor in inputs.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        request.raw_input_contents.append(tensor.tobytes())
    return request


def _read(response: Any) -> dict[str, NDArray[np.generic]]:
    return {
        output.name: np.frombuffer(raw, dtype=triton_to_np_dtype(output.datatype)).reshape(tuple(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _joined(answers: Sequence[Mapping[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    if len(answers) == 1:
        return dict(answers[0])
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _retry_after_seconds(error: grpc.RpcError) -> float:
    metadata = cast("Sequence[tuple[str, str]]", error.trailing_metadata() or ())
    for name, value in metadata:
        if name == "retry-after-ms" and value.isdigit():
            return min(int(value) / 1000, _LAST_BACKOFF_SECONDS)
    return 0.0


def _translated(model: str, error: grpc.RpcError) -> Exception:
    code, detail = error.code(), error.details()
    if code == grpc.StatusCode.NOT_FOUND:
        return ModelUnavailable(f"model {model}: {detail}")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return BadSegment("model_refused", f"model {model} refuses the input: {detail}")
    if code == grpc.StatusCode.INTERNAL:
        return BadSegment("model_failed", f"model {model}: {detail}")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(f"model {model}: {detail}", retry_after_seconds=_LAST_BACKOFF_SECONDS)
    return InferenceUnreachable(f"model {model}: the server does not answer ({code.name}): {detail}")
