"""The machines of the burst pools: found by name, watched by health, chosen by price and load.

A machine that was told to go says so through the health service (`NOT_SERVING`) and takes nothing more, while what it
holds goes on; one that vanishes is noticed by its connection. Both are left out at the next choice.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2
from skyscraper.control.breaker import Breaker, BreakerTerms
from skyscraper.control.breaker import State as BreakerState
from tritonclient.grpc import service_pb2 as oip

from skyscraper_burst import metrics
from skyscraper_burst.config import PoolConfig

log = structlog.get_logger()

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_SERVER_READY = "/inference.GRPCInferenceService/ServerReady"
_WATCH = "/grpc.health.v1.Health/Watch"
# A machine that comes back is used again within about this.
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.1, 2.0
# For servers without the health service.
_POLL_SECONDS = 1.0
_RESOLVE_TIMEOUT_SECONDS = 5.0
_NO_ADDRESS = (socket.EAI_NONAME, socket.EAI_NODATA)


class State(Enum):
    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(eq=False)
class Endpoint:
    """One machine. `infer` sends a serialized ModelInferRequest and gives the serialized answer."""

    pool: str
    target: str
    channel: grpc.aio.Channel
    infer: Any
    breaker: Breaker
    state: State = State.CONNECTING
    in_flight: int = 0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)

    def usable(self, now_seconds: float) -> bool:
        return self.state is State.READY and self.breaker.would_allow(now_seconds)


class Endpoints:
    """All of them. One event loop."""

    def __init__(
        self,
        pools: Sequence[PoolConfig],
        breaker: BreakerTerms,
        *,
        max_message_bytes: int,
        resolve_seconds: float,
        price: Callable[[str], int],
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self._breaker = breaker
        self._max_message_bytes = max_message_bytes
        self._resolve_seconds = resolve_seconds
        self._price = price
        self._credentials = credentials
        self._clock = clock
        self._found: dict[tuple[str, str], Endpoint] = {}
        self.version = 0
        """Rises with every change."""

    async def run(self) -> None:
        while True:
            for pool in self._pools.values():
                await self._resolve(pool)
            await asyncio.sleep(self._resolve_seconds)

    async def close(self) -> None:
        await asyncio.gather(*(self._drop(one) for one in list(self._found.values())))

    def choose(self, exclude: Sequence[Endpoint] = ()) -> Endpoint | None:
        """Of the cheapest pool that has one, the machine with the least to do; one of `exclude` only if it must be."""
        now = self._clock()
        usable = [one for one in self._found.values() if one.usable(now)]
        fresh = [one for one in usable if one not in exclude] or usable
        if not fresh:
            return None
        cheapest = min(self._price(one.pool) for one in fresh)
        of_cheapest = [one for one in fresh if self._price(one.pool) == cheapest]
        least = min(one.in_flight for one in of_cheapest)
        return random.choice([one for one in of_cheapest if one.in_flight == least])  # noqa: S311 - spreads load

    def others(self, endpoint: Endpoint) -> bool:
        """Whether another machine could take a second try."""
        now = self._clock()
        return any(one is not endpoint and one.usable(now) for one in self._found.values())

    def count(self, state: State) -> int:
        return sum(one.state is state for one in self._found.values())

    def ready(self, pool: str) -> int:
        return sum(one.pool == pool and one.state is State.READY for one in self._found.values())

    @property
    def cheapest_price(self) -> int:
        """Of the pools that are ready, else of all."""
        now = self._clock()
        ready = {one.pool for one in self._found.values() if one.usable(now)}
        return min(self._price(name) for name in ready or self._pools)

    @property
    def cold_start_seconds(self) -> float:
        now = self._clock()
        if any(one.usable(now) for one in self._found.values()):
            return 0.0
        return min(pool.cold_start_seconds for pool in self._pools.values())

    def any(self) -> Endpoint | None:
        """For questions that cost nothing (metadata): any machine that is there."""
        ready = [one for one in self._found.values() if one.state is State.READY]
        return ready[0] if ready else None

    def ended(self, endpoint: Endpoint, good: bool) -> None:
        before = endpoint.breaker.state
        endpoint.breaker.ended(good, self._clock())
        if endpoint.breaker.state is BreakerState.OPEN and before is not BreakerState.OPEN:
            metrics.BREAKER_OPENED.labels(endpoint.pool).inc()
            log.warning("endpoint_left_alone", pool=endpoint.pool, target=endpoint.target)
            self.version += 1

    async def _resolve(self, pool: PoolConfig) -> None:
        """Machines that came and went since the last look-up. A name that cannot be resolved keeps what it had."""
        wanted: dict[str, str] = {}
        """Names by address."""
        for target in pool.targets:
            host, _, port = target.removeprefix("dns:///").rpartition(":")
            host = host.strip("[]")
            try:
                async with asyncio.timeout(_RESOLVE_TIMEOUT_SECONDS):
                    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except (OSError, TimeoutError, ValueError) as error:
                # A headless service without pods has no address: the pool is scaled to zero. Anything else may be
                # the name server's fault.
                if not (isinstance(error, socket.gaierror) and error.errno in _NO_ADDRESS):
                    log.warning("target_unresolved", pool=pool.name, target=target, error=str(error))
                    wanted |= {one.target: host for one in self._found.values() if one.pool == pool.name}
                continue
            wanted |= {_address(str(one[4][0]), port): host for one in found}
        for target in wanted.keys() - {one.target for one in self._found.values() if one.pool == pool.name}:
            self._add(pool, target, wanted[target])
        for one in list(self._found.values()):
            if one.pool == pool.name and one.target not in wanted and not one.in_flight:
                await self._drop(one)

    def _add(self, pool: PoolConfig, target: str, host: str) -> None:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", self._max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A machine that was taken away without a word is noticed within seconds.
            ("grpc.keepalive_time_ms", 5_000),
            ("grpc.keepalive_timeout_ms", 2_000),
            ("grpc.http2.max_pings_without_data", 0),
            # Connections of their own: a machine that is gone must not be mistaken for the one at its address before.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(target, options)
        else:
            # Reached by address, and known by the name that was looked up.
            options.append(("grpc.ssl_target_name_override", host))
            channel = grpc.aio.secure_channel(target, self._credentials, options)
        endpoint = Endpoint(pool.name, target, channel, channel.unary_unary(MODEL_INFER), Breaker(self._breaker))
        endpoint.watcher = asyncio.create_task(self._watch(endpoint))
        self._found[pool.name, target] = endpoint
        log.info("endpoint_found", pool=pool.name, target=target)

    async def _drop(self, endpoint: Endpoint) -> None:
        self._found.pop((endpoint.pool, endpoint.target), None)
        if endpoint.watcher is not None:
            endpoint.watcher.cancel()
        await endpoint.channel.close()
        self._tell()

    def _set(self, endpoint: Endpoint, state: State) -> None:
        if endpoint.state is not state:
            log.info("endpoint_state", pool=endpoint.pool, target=endpoint.target, state=state.value)
            if state is State.READY:
                # Another process, most likely: what the last one did is not its fault.
                endpoint.breaker = Breaker(self._breaker)
            endpoint.state = state
            self._tell()

    def _tell(self) -> None:
        for pool in self._pools:
            for state in State:
                count = sum(one.pool == pool and one.state is state for one in self._found.values())
                metrics.ENDPOINTS.labels(pool, state.value).set(count)
        self.version += 1

    async def _watch(self, endpoint: Endpoint) -> None:
        """Follow the machine's health for as long as it is known."""
        pause = _FIRST_PAUSE_SECONDS
        follow: Callable[[Endpoint], Awaitable[None]] = self._follow_health
        while True:
            begun = self._clock()
            try:
                await follow(endpoint)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    follow = self._poll_ready
                    continue
                self._set(endpoint, State.CONNECTING)
            if self._clock() - begun > _LAST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _follow_health(self, endpoint: Endpoint) -> None:
        watch = endpoint.channel.unary_stream(
            _WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        async for answer in watch(health_pb2.HealthCheckRequest()):
            serving = answer.status == health_pb2.HealthCheckResponse.SERVING
            self._set(endpoint, State.READY if serving else State.DRAINING)
        self._set(endpoint, State.CONNECTING)

    async def _poll_ready(self, endpoint: Endpoint) -> None:
        ask = endpoint.channel.unary_unary(
            _SERVER_READY,
            request_serializer=oip.ServerReadyRequest.SerializeToString,
            response_deserializer=oip.ServerReadyResponse.FromString,
        )
        while True:
            answer = await ask(oip.ServerReadyRequest(), timeout=_POLL_SECONDS)
            self._set(endpoint, State.READY if answer.ready else State.DRAINING)
            await asyncio.sleep(_POLL_SECONDS)


def _address(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
