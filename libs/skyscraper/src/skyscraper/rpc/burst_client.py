"""The decoder's way to the burst gateway: what the pool offers now, and segments sent there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import numpy as np
import structlog
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from skyscraper.errors import SkyscraperError
from skyscraper.rpc.burst import (
    BID_PER_BYTE,
    CHARGED_NANO_USD,
    ESTIMATED_CORE_SECONDS,
    REFUSAL,
    TENANT,
    WORK_CORE_SECONDS,
)
from skyscraper.rpc.model_client import open_channel
from skyscraper.v1 import burst_pb2, burst_pb2_grpc

log = structlog.get_logger()

# The gateway tells the pool anew every second; what is older than some of these is no offer any more.
_STALE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.25, 2.0
# Words for a metric; the gateway has a bounded set of its own for refusals.
_CODES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: "resource_exhausted",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.INTERNAL: "model_failed",
    grpc.StatusCode.NOT_FOUND: "no_model",
}
_STANDBY = "standby"


class BurstFailed(SkyscraperError):
    """The work was not done on burst machines. `reason` is one of a bounded set of words."""

    retriable = True

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class BurstTerms:
    """What the pool offers a tenant. Amounts in dollars."""

    ready: bool
    usd_per_core_second: float
    left_usd: float
    budget_usd: float
    calendar_day: bool
    """Whether the budget is for a calendar day, as plans are."""
    cold_start_seconds: float
    uplink_wait_seconds: float


@dataclass(frozen=True)
class Bursted:
    """An answer, the work that machines measured for it, and what it cost."""

    outputs: dict[str, NDArray[Any]]
    core_seconds: float
    nano_usd: int


class BurstClient:
    """Shared by all threads of a process. `targets`: the gateways; whichever leads answers."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        in_flight_bytes: int,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels = [open_channel(target, credentials) for target in targets]
        self._most_bytes = in_flight_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0
        self._leader = 0
        self._terms: dict[str, tuple[BurstTerms, float]] = {}
        self._watched: set[str] = set()
        self._wanted: dict[str, Any] = {}
        self._stop = threading.Event()

    def close(self) -> None:
        self._stop.set()
        for channel in self._channels:
            channel.close()

    def terms(self, tenant: str) -> BurstTerms | None:
        """As told last; None while no gateway answers. The first call of a tenant begins to watch."""
        with self._lock:
            if tenant not in self._watched and not self._stop.is_set():
                self._watched.add(tenant)
                threading.Thread(target=self._watch, args=(tenant,), name=f"burst-{tenant}", daemon=True).start()
            known = self._terms.get(tenant)
        if known is None or self._clock() - known[1] > _STALE_SECONDS:
            return None
        return known[0]

    def want(self, tenant: str, core_seconds: float) -> None:
        """Tell the gateway that work would come if machines were there. Does not wait for an answer."""
        stub = burst_pb2_grpc.BurstServiceStub(self._channels[self._leader])
        request = burst_pb2.QuoteRequest(tenant=tenant, core_seconds=core_seconds)
        # gRPC cancels a call that nobody holds.
        self._wanted[tenant] = stub.Quote.future(request, timeout=_STALE_SECONDS)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        tenant: str,
        estimated_core_seconds: float,
        bid_per_byte: float,
        deadline_seconds: float,
    ) -> Bursted:
        """Run `model` on burst machines within `deadline_seconds` from now. Raises BurstFailed at once where the
        gateway refuses, or where more bytes are under way already than may be."""
        request = oip.ModelInferRequest(model_name=model)
        for name, tensor in inputs.items():
            request.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
            request.raw_input_contents.append(tensor.tobytes())
        size = sum(len(raw) for raw in request.raw_input_contents)
        with self._lock:
            if self._bytes + size > self._most_bytes:
                raise BurstFailed("in_flight_bytes", f"{self._bytes} bytes are under way to burst machines")
            self._bytes += size
        metadata = (
            (TENANT, tenant),
            (ESTIMATED_CORE_SECONDS, repr(estimated_core_seconds)),
            (BID_PER_BYTE, repr(bid_per_byte)),
        )
        until = self._clock() + deadline_seconds
        try:
            return self._send(request, metadata, until)
        finally:
            with self._lock:
                self._bytes -= size

    def _send(self, request: Any, metadata: tuple[tuple[str, str], ...], until: float) -> Bursted:
        """To the gateway that led last, and once to each other where that stands by or is gone."""
        first = self._leader
        for step in range(len(self._channels)):
            index = (first + step) % len(self._channels)
            stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channels[index])
            try:
                response, call = stub.ModelInfer.with_call(
                    request, timeout=max(0.0, until - self._clock()), metadata=metadata
                )
            except grpc.RpcError as error:
                told = _told(error)
                away = error.code() is grpc.StatusCode.UNAVAILABLE and told.get(REFUSAL, _STANDBY) == _STANDBY
                if away and step + 1 < len(self._channels):
                    continue
                reason = told.get(REFUSAL) or _CODES.get(error.code(), "other")
                raise BurstFailed(reason, f"burst: {error.code().name}: {error.details()}") from error
            except ValueError as error:
                # What gRPC raises once the channel was closed: this process is about to end.
                raise BurstFailed("closed", f"burst: {error}") from error
            self._leader = index
            told = _told(call)
            outputs = {
                output.name: np.frombuffer(raw, dtype=triton_to_np_dtype(output.datatype)).reshape(tuple(output.shape))
                for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }
            return Bursted(outputs, float(told.get(WORK_CORE_SECONDS, 0.0)), int(told.get(CHARGED_NANO_USD, 0)))
        raise BurstFailed("no_gateway", "burst: there is no gateway")

    def _watch(self, tenant: str) -> None:
        """Follow what is offered, from whichever gateway leads."""
        pause, index = _FIRST_PAUSE_SECONDS, 0
        while not self._stop.is_set():
            stub = burst_pb2_grpc.BurstServiceStub(self._channels[index])
            try:
                for told in stub.WatchPool(burst_pb2.WatchPoolRequest(tenant=tenant)):
                    pause, self._leader = _FIRST_PAUSE_SECONDS, index
                    with self._lock:
                        self._terms[tenant] = _terms(told), self._clock()
                    if self._stop.is_set():
                        return
            except grpc.RpcError as error:
                log.debug("burst_watch_ended", tenant=tenant, code=cast("Any", error).code().name)
            except ValueError:
                return
            index = (index + 1) % len(self._channels)
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)


def _terms(told: burst_pb2.WatchPoolResponse) -> BurstTerms:
    return BurstTerms(
        ready=told.pool.ready_endpoints > 0,
        usd_per_core_second=told.pool.price_nano_usd_per_core_second * 1e-9,
        left_usd=told.left_micro_usd * 1e-6,
        budget_usd=told.budget.micro_usd * 1e-6,
        calendar_day=told.budget.calendar == burst_pb2.CALENDAR_PERIOD_DAY,
        cold_start_seconds=told.pool.cold_start_seconds,
        uplink_wait_seconds=told.pool.uplink_wait_seconds,
    )


def _told(call: Any) -> dict[str, str]:
    return {name: value for name, value in call.trailing_metadata() or () if isinstance(value, str)}
