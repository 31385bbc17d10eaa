"""The gateway's process: an event loop for requests, a thread for the ledger."""

from __future__ import annotations

import asyncio
import threading
import time
from importlib.metadata import version

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from skyscraper.control.breaker import BreakerTerms
from skyscraper.errors import SkyscraperError
from skyscraper.keda import externalscaler_pb2, externalscaler_pb2_grpc
from skyscraper.rpc.pings import ALLOW_PINGS
from skyscraper.rpc.tls import channel_credentials, listen
from skyscraper.service import Health
from skyscraper.v1 import burst_pb2, burst_pb2_grpc

from skyscraper_burst import metrics
from skyscraper_burst.config import BurstConfig
from skyscraper_burst.demand import Demand
from skyscraper_burst.endpoints import Endpoints
from skyscraper_burst.forward import Forwarder
from skyscraper_burst.gate import Gate
from skyscraper_burst.keeper import Keeper
from skyscraper_burst.money import BurstServicer
from skyscraper_burst.oip import SERVICE, OipFront
from skyscraper_burst.prices import Prices
from skyscraper_burst.scaler import Scaler
from skyscraper_burst.shares import Shares
from skyscraper_burst.treasury import BlockTerms, Treasury

log = structlog.get_logger()

_TURN_SECONDS = 0.5
# A loop that stands still for so long is hung.
_ALIVE_SECONDS = 30.0


class LedgerThreadFailed(SkyscraperError):
    """The thread that keeps the ledger has ended; the process starts again."""

    retriable = True


class Gateway:
    """One gateway, without its signals and its HTTP face. Made and run inside an event loop."""

    def __init__(self, config: BurstConfig) -> None:
        self._config = config
        self.draining = False
        self.last_turn = time.monotonic()
        self.treasury = Treasury(
            {name: one.budget() for name, one in config.budgets.items()},
            None if config.default_budget is None else config.default_budget.budget(),
            BlockTerms(config.ledger.ahead_seconds, config.ledger.most_block_share),
        )
        self._prices = Prices(config.pools, config.prices)
        retry = config.retry
        self.endpoints = Endpoints(
            config.pools,
            BreakerTerms(
                failures=retry.breaker_failures,
                remembered=max(10, retry.breaker_failures),
                open_seconds=retry.breaker_open_seconds,
                most_open_seconds=retry.breaker_most_open_seconds,
            ),
            max_message_bytes=config.max_message_bytes,
            resolve_seconds=config.resolve_seconds,
            price=self._prices.of,
            credentials=channel_credentials(config.machine_tls),
        )
        self._shares = Shares(config.pools, price=self._prices.of, ready=self.endpoints.ready)
        self._gate = Gate(config.link)
        self._demand = Demand(config.scaling.demand_memory_seconds, time.monotonic)
        self._forwarder = Forwarder(config, self.treasury, self.endpoints, self._prices, self._gate, self._demand)
        self._keeper = Keeper(
            config.kafka.client(),
            config.ledger,
            self.treasury,
            instance=config.instance,
            on_change=self._tell_leading,
        )
        self._loop = asyncio.get_running_loop()
        self._health = health_aio.HealthServicer()

    async def run(self, state: Health, stop: asyncio.Event) -> None:
        server = self._server()
        background = [asyncio.create_task(self._prices.run()), asyncio.create_task(self.endpoints.run())]
        try:
            await asyncio.to_thread(self._keeper.start)
            await server.start()
            # One that stands by is ready too: a rollout that waited for it to lead would wait for ever.
            state.set_ready(True)
            while not stop.is_set():
                self._turn(background)
                try:
                    async with asyncio.timeout(_TURN_SECONDS):
                        await stop.wait()
                except TimeoutError:
                    continue
            self.draining = True
            state.set_ready(False)
            await self._health.enter_graceful_shutdown()
            await self._forwarder.drain(self._config.shutdown_seconds)
            await server.stop(grace=1.0)
            await asyncio.to_thread(self._keeper.close)
        finally:
            for task in background:
                task.cancel()
            await self.endpoints.close()

    def _turn(self, background: list[asyncio.Task[None]]) -> None:
        self.last_turn = time.monotonic()
        # Requests come to the one that leads; the others know from its heartbeats what waits.
        waiting = self._demand.waiting_core_seconds if self.treasury.leading else self._keeper.told_core_seconds
        self._keeper.waiting_core_seconds = waiting
        metrics.WAITING_CORE_SECONDS.set(waiting)
        self._shares.update(waiting)
        if not self._keeper.alive:
            raise LedgerThreadFailed(f"the ledger's thread ended: {self._keeper.failure}")
        for task in background:
            if task.done() and (error := task.exception()) is not None:
                raise error

    def _tell_leading(self, leading: bool) -> None:
        """From the ledger's thread."""
        self._loop.call_soon_threadsafe(self._set_leading, leading)

    def _set_leading(self, leading: bool) -> None:
        if not self.draining:
            serving = health_pb2.HealthCheckResponse.SERVING if leading else health_pb2.HealthCheckResponse.NOT_SERVING
            task = self._loop.create_task(self._health.set("", serving))
            task.add_done_callback(lambda done: done.exception())

    def _server(self) -> grpc.aio.Server:
        config = self._config
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", config.max_message_bytes),
                ("grpc.max_send_message_length", config.max_message_bytes),
                ("grpc.so_reuseport", 0),
                *ALLOW_PINGS,
            ]
        )
        front = OipFront(config, self._forwarder, self.treasury, self.endpoints, lambda: self.draining)
        server.add_generic_rpc_handlers((front.handler(),))
        burst_pb2_grpc.add_BurstServiceServicer_to_server(
            BurstServicer(config, self.treasury, self.endpoints, self._gate, self._demand), server
        )
        externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server(Scaler(self._shares), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (
            SERVICE,
            burst_pb2.DESCRIPTOR.services_by_name["BurstService"].full_name,
            externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"].full_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(names, server)
        port = listen(server, config.host, config.port, config.tls)
        if config.port_file is not None:
            config.port_file.write_text(str(port), encoding="utf-8")
        log.info("listening", port=port, version=version("skyscraper-burst"))
        return server


def serve(config: BurstConfig, state: Health, stop: threading.Event) -> None:
    asyncio.run(_serve(config, state, stop))


async def _serve(config: BurstConfig, state: Health, stop: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    gateway = Gateway(config)
    state.alive = lambda: time.monotonic() - gateway.last_turn < _ALIVE_SECONDS

    def watch() -> None:
        stop.wait()
        loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=watch, name="stop", daemon=True).start()
    await gateway.run(state, stopping)
