"""The Open Inference Protocol at the gateway's front door: requests go through as bytes; questions go to a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from skyscraper.bus.ledger import DEFAULT_TENANT
from skyscraper.rpc.burst import (
    BID_PER_BYTE,
    CHARGED_NANO_USD,
    ESTIMATED_CORE_SECONDS,
    REFUSAL,
    TENANT,
    WORK_CORE_SECONDS,
)
from tritonclient.grpc import service_pb2 as oip

from skyscraper_burst import metrics
from skyscraper_burst.config import BurstConfig
from skyscraper_burst.endpoints import Endpoints
from skyscraper_burst.forward import Forwarder, Refused, Wish
from skyscraper_burst.treasury import Treasury

SERVICE = "inference.GRPCInferenceService"
# Questions about models, answered by any machine that is ready.
_ASKED = ("ModelReady", "ModelMetadata", "ModelConfig", "ServerMetadata", "RepositoryIndex", "ModelStatistics")
_ASK_SECONDS = 5.0


class OipFront:
    """Handlers for grpc.aio."""

    def __init__(
        self,
        config: BurstConfig,
        forwarder: Forwarder,
        treasury: Treasury,
        endpoints: Endpoints,
        draining: Callable[[], bool],
    ) -> None:
        self._config = config
        self._forwarder = forwarder
        self._treasury = treasury
        self._endpoints = endpoints
        self._draining = draining

    def handler(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Any] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ServerLive": grpc.unary_unary_rpc_method_handler(self._live),
            "ServerReady": grpc.unary_unary_rpc_method_handler(self._ready),
            **{name: grpc.unary_unary_rpc_method_handler(self._asked(name)) for name in _ASKED},
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _infer(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        begun = time.monotonic()
        wish = self._wish(body, context, begun)
        try:
            if self._draining():
                raise Refused(grpc.StatusCode.UNAVAILABLE, "this gateway is stopping", "draining")
            answer = await self._forwarder.infer(wish)
        except Refused as error:
            metrics.REFUSED.labels(error.reason).inc()
            metrics.REQUESTS.labels(self._treasury.label(wish.tenant), error.code.name).inc()
            await context.abort(error.code, str(error), ((REFUSAL, error.reason),))
        context.set_trailing_metadata(
            ((WORK_CORE_SECONDS, repr(answer.core_seconds)), (CHARGED_NANO_USD, str(answer.charged_nano)))
        )
        metrics.REQUESTS.labels(self._treasury.label(wish.tenant), "OK").inc()
        metrics.REQUEST_SECONDS.observe(time.monotonic() - begun)
        return answer.body

    def _wish(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes], now: float) -> Wish:
        told = {str(name): value for name, value in context.invocation_metadata() or ()}
        remaining = context.time_remaining()
        seconds = self._config.default_deadline_seconds if remaining is None else remaining
        return Wish(
            body,
            str(told.get(TENANT) or DEFAULT_TENANT)[:64],
            _number(told.get(ESTIMATED_CORE_SECONDS)),
            now + min(seconds, self._config.most_deadline_seconds),
            _number(told.get(BID_PER_BYTE)),
        )

    async def _live(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return bytes(oip.ServerLiveResponse(live=True).SerializeToString())

    async def _ready(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        ready = self._treasury.leading and self._endpoints.any() is not None
        return bytes(oip.ServerReadyResponse(ready=ready).SerializeToString())

    def _asked(self, name: str) -> Any:
        async def ask(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            endpoint = self._endpoints.any()
            if endpoint is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "no machine of the burst pool is ready")
            try:
                send: Any = endpoint.channel.unary_unary(f"/{SERVICE}/{name}")
                answer: bytes = await send(body, timeout=_ASK_SECONDS)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or error.code().name)
            return answer

        return ask


def _number(text: str | bytes | None) -> float:
    """A number that a client told; nothing where it is none: estimates are a help, not a right."""
    try:
        value = float(text or 0.0)
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0
