"""skyscraper.v1.BurstService: budgets, reservations of who sends by itself, and the pool as it is."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
from skyscraper.bus.ledger import DEFAULT_TENANT, LedgerError, decode_budget, encode_budget, is_tenant
from skyscraper.control.budget import NANO_PER_MICRO, cost_nano
from skyscraper.v1 import burst_pb2, burst_pb2_grpc

from skyscraper_burst import metrics
from skyscraper_burst.config import BurstConfig
from skyscraper_burst.demand import Demand
from skyscraper_burst.endpoints import Endpoints, State
from skyscraper_burst.gate import Gate
from skyscraper_burst.treasury import BudgetSpent, NotLeading, Treasury

T = TypeVar("T")

# Each is a timer and some hundred bytes.
_MOST_RESERVATIONS = 100_000
# The pool is told again with every change of its machines, and of everything else at least so often.
_WATCH_SECONDS = 1.0
_LEDGER_SECONDS = 10.0


@dataclass(frozen=True)
class _Reservation:
    tenant: str
    nano: int
    price_nano: int
    expiry: asyncio.TimerHandle


class BurstServicer(burst_pb2_grpc.BurstServiceServicer):
    """For grpc.aio."""

    def __init__(
        self, config: BurstConfig, treasury: Treasury, endpoints: Endpoints, gate: Gate, demand: Demand
    ) -> None:
        self._config = config
        self._treasury = treasury
        self._endpoints = endpoints
        self._gate = gate
        self._demand = demand
        self._reservations: dict[str, _Reservation] = {}

    async def Quote(  # noqa: N802 - the protocol's names
        self, request: burst_pb2.QuoteRequest, context: Any
    ) -> burst_pb2.QuoteResponse:
        tenant = request.tenant or DEFAULT_TENANT
        left = await self._or_abort(context, lambda: self._treasury.balance(tenant)[3])
        if self._endpoints.cold_start_seconds > 0:
            self._demand.miss(request.core_seconds)
        nano = cost_nano(max(0.0, request.core_seconds), self._endpoints.cheapest_price)
        return burst_pb2.QuoteResponse(
            micro_usd=-(-nano // NANO_PER_MICRO), left_micro_usd=left // NANO_PER_MICRO, pool=self._pool()
        )

    async def Reserve(self, request: burst_pb2.ReserveRequest, context: Any) -> burst_pb2.ReserveResponse:  # noqa: N802
        tenant = request.tenant or DEFAULT_TENANT
        if not 0 < request.ceiling_core_seconds < float("inf"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ceiling_core_seconds must be above 0")
        if not 0 < request.expires_seconds <= self._config.most_deadline_seconds:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"expires_seconds must be above 0 and at most {self._config.most_deadline_seconds:g}",
            )
        if len(self._reservations) >= _MOST_RESERVATIONS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MOST_RESERVATIONS} reservations are open")
        price = self._endpoints.cheapest_price
        nano = cost_nano(request.ceiling_core_seconds, price)
        try:
            await self._treasury.hold(tenant, nano, time.monotonic() + _LEDGER_SECONDS)
        except BudgetSpent as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except NotLeading as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        name = uuid.uuid4().hex
        expiry = asyncio.get_running_loop().call_later(request.expires_seconds, self._expire, name)
        self._reservations[name] = _Reservation(tenant, nano, price, expiry)
        return burst_pb2.ReserveResponse(reservation_id=name, held_micro_usd=-(-nano // NANO_PER_MICRO))

    async def Settle(self, request: burst_pb2.SettleRequest, context: Any) -> burst_pb2.SettleResponse:  # noqa: N802
        if not 0 <= request.core_seconds < float("inf"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "core_seconds must be 0 or more")
        found = await self._end(request.reservation_id, context)
        cost = cost_nano(request.core_seconds, found.price_nano)
        self._treasury.settle(found.tenant, found.nano, cost)
        return burst_pb2.SettleResponse(charged_micro_usd=-(-cost // NANO_PER_MICRO))

    async def Release(self, request: burst_pb2.ReleaseRequest, context: Any) -> burst_pb2.ReleaseResponse:  # noqa: N802
        found = await self._end(request.reservation_id, context)
        self._treasury.release(found.tenant, found.nano)
        return burst_pb2.ReleaseResponse()

    async def GetBudget(self, request: burst_pb2.GetBudgetRequest, context: Any) -> burst_pb2.GetBudgetResponse:  # noqa: N802
        return await self._or_abort(context, lambda: self._balance(request.tenant or DEFAULT_TENANT))

    async def SetBudget(self, request: burst_pb2.SetBudgetRequest, context: Any) -> burst_pb2.SetBudgetResponse:  # noqa: N802
        tenant = request.tenant or DEFAULT_TENANT
        try:
            budget = decode_budget(request.budget)
        except LedgerError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if not is_tenant(tenant):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{tenant!r:.70} is not a tenant's name")
        try:
            async with asyncio.timeout(_LEDGER_SECONDS):
                await self._treasury.set_budget(tenant, budget)
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger was not written in time; ask again")
        except NotLeading as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return burst_pb2.SetBudgetResponse(balance=self._balance(tenant))

    async def WatchPool(  # noqa: N802
        self, request: burst_pb2.WatchPoolRequest, context: Any
    ) -> AsyncIterator[burst_pb2.WatchPoolResponse]:
        tenant = request.tenant or DEFAULT_TENANT
        while True:
            budget, left = await self._or_abort(context, lambda: self._left(tenant))
            yield burst_pb2.WatchPoolResponse(pool=self._pool(), left_micro_usd=left, budget=budget)
            before = self._endpoints.version
            for _ in range(_LOOKS):
                await asyncio.sleep(_WATCH_SECONDS / _LOOKS)
                if self._endpoints.version != before or not self._treasury.leading:
                    break

    def _pool(self) -> burst_pb2.PoolState:
        return burst_pb2.PoolState(
            ready_endpoints=self._endpoints.count(State.READY),
            draining_endpoints=self._endpoints.count(State.DRAINING),
            price_nano_usd_per_core_second=self._endpoints.cheapest_price,
            cold_start_seconds=self._endpoints.cold_start_seconds,
            waiting_core_seconds=self._demand.waiting_core_seconds,
            uplink_wait_seconds=self._gate.wait_seconds,
        )

    def _left(self, tenant: str) -> tuple[burst_pb2.Budget | None, int]:
        """Nothing for a tenant without a budget: it may watch all the same."""
        try:
            budget, _, _, left = self._treasury.balance(tenant)
        except BudgetSpent:
            return None, 0
        return encode_budget(budget), left // NANO_PER_MICRO

    def _balance(self, tenant: str) -> burst_pb2.GetBudgetResponse:
        budget, spent, open_nano, left = self._treasury.balance(tenant)
        return burst_pb2.GetBudgetResponse(
            tenant=tenant,
            budget=encode_budget(budget),
            spent_micro_usd=-(-spent // NANO_PER_MICRO),
            open_micro_usd=-(-open_nano // NANO_PER_MICRO),
            left_micro_usd=left // NANO_PER_MICRO,
        )

    async def _or_abort(self, context: Any, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BudgetSpent as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except NotLeading as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("abort raises")

    async def _end(self, name: str, context: Any) -> _Reservation:
        found = self._reservations.pop(name, None)
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no reservation {name!r:.40}: it expired and was charged, or never was"
            )
            raise AssertionError("abort raises")
        found.expiry.cancel()
        return found

    def _expire(self, name: str) -> None:
        found = self._reservations.pop(name)
        metrics.EXPIRED_RESERVATIONS.labels(found.tenant).inc()
        self._treasury.settle(found.tenant, found.nano, found.nano)


# Changes of the machines are told within a tenth of that.
_LOOKS = 10
