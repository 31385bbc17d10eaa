"""A request's way to a machine and back: hold dollars, wait for the link, send, settle what it took.

The order is visible in `Forwarder.infer` and `Forwarder._attempt`. Requests go through as they came: they are not
parsed, and only answers of servers that do not tell their work beside the answer are read for it.

What an attempt costs. At most its deadline times the cores it can occupy: so much is held. An answer tells its work,
and that is charged. A machine that refuses and says so costs nothing. One that died, or broke off, has worked for at
most as long as it had the request: the time is charged. A deadline that passed is charged in full.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from skyscraper.control.budget import cost_nano
from skyscraper.control.hedging import Hedges, Latencies, hedge_after_seconds
from skyscraper.rpc.burst import NOT_BEGUN, WORK_CORE_SECONDS
from tritonclient.grpc import service_pb2 as oip

from skyscraper_burst import metrics
from skyscraper_burst.config import BurstConfig
from skyscraper_burst.demand import Demand
from skyscraper_burst.endpoints import Endpoint, Endpoints
from skyscraper_burst.gate import Gate
from skyscraper_burst.prices import Prices
from skyscraper_burst.treasury import BudgetSpent, NotLeading, Treasury

log = structlog.get_logger()

# Another machine may answer.
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
# The machine is at fault, not the request.
_SICK = (*_RETRIED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
# What the server's own checks refuse before any work.
_UNWORKED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
# A machine that refused because it was full is full for about a batch.
_RETRY_PAUSE_SECONDS = 0.02
# Kinds of requests whose latencies are known apart: models, by size.
_MOST_KINDS = 256
# Answers are as large as they were the last time, about.
_NEWEST_SHARE = 0.2


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request was not done here. The caller takes its next choice."""

    def __init__(self, code: grpc.StatusCode, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Wish:
    """A request as it came. `deadline_seconds` on the monotonic clock; `core_seconds` is the caller's estimate."""

    body: bytes
    tenant: str
    core_seconds: float
    deadline_seconds: float
    bid_per_byte: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A serialized ModelInferResponse."""

    body: bytes
    core_seconds: float
    charged_nano: int


@dataclass
class _Kind:
    """Requests of one model and about one size."""

    latencies: Latencies = field(default_factory=Latencies)
    down_bytes: float = 0.0


class Forwarder:
    """One for the process, in its event loop."""

    def __init__(
        self,
        config: BurstConfig,
        treasury: Treasury,
        endpoints: Endpoints,
        prices: Prices,
        gate: Gate,
        demand: Demand,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._treasury = treasury
        self._endpoints = endpoints
        self._prices = prices
        self._gate = gate
        self._demand = demand
        self._clock = clock
        self._hedges = Hedges(config.retry.hedge_share)
        self._kinds: OrderedDict[tuple[str, int], _Kind] = OrderedDict()
        self._in_flight_bytes = 0
        self._attempts: set[asyncio.Task[Answer]] = set()

    async def drain(self, deadline_seconds: float) -> None:
        """Wait for what is under way, so that it is settled."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=deadline_seconds)

    async def infer(self, wish: Wish) -> Answer:
        """Raises Refused."""
        if not self._treasury.leading:
            raise Refused(grpc.StatusCode.UNAVAILABLE, "this gateway stands by", "standby")
        size = len(wish.body)
        if self._in_flight_bytes + size > self._config.in_flight_bytes:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._in_flight_bytes} of {self._config.in_flight_bytes} bytes are inside; {size} more do not fit",
                "in_flight_bytes",
            )
        self._in_flight_bytes += size
        metrics.IN_FLIGHT_BYTES.set(self._in_flight_bytes)
        self._demand.begin(wish.core_seconds)
        kind = self._kind(wish.body)
        try:
            begun = self._clock()
            await self._gate.enter(
                bid_per_byte=wish.bid_per_byte,
                up_bytes=size,
                down_bytes=kind.down_bytes,
                deadline_seconds=wish.deadline_seconds,
            )
            metrics.LINK_WAIT_SECONDS.observe(self._clock() - begun)
            answer = await self._send(wish, kind)
        except TimeoutError as error:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the link to the pool is occupied until the deadline", "link"
            ) from error
        finally:
            self._in_flight_bytes -= size
            metrics.IN_FLIGHT_BYTES.set(self._in_flight_bytes)
            self._demand.end(wish.core_seconds)
        self._gate.received(len(answer.body) - kind.down_bytes)
        kind.down_bytes += _NEWEST_SHARE * (len(answer.body) - kind.down_bytes)
        return answer

    async def _send(self, wish: Wish, kind: _Kind) -> Answer:
        """Try until an answer, an error that is the request's own fault, the deadline, or the last attempt."""
        tried: list[Endpoint] = []
        while True:
            endpoint = self._endpoints.choose(tried)
            if endpoint is None:
                self._demand.miss(wish.core_seconds)
                raise Refused(grpc.StatusCode.UNAVAILABLE, "no machine of the burst pool is ready", "no_machine")
            tried.append(endpoint)
            try:
                return await self._hedged(wish, kind, endpoint, tried)
            except grpc.aio.AioRpcError as error:
                code = error.code()
                last = len(tried) >= self._config.retry.attempts or self._left(wish) <= _RETRY_PAUSE_SECONDS
                if code not in _RETRIED or last:
                    raise Refused(code, error.details() or code.name, "attempts" if last else "machine") from error
                metrics.RETRIES.labels(code.name.lower()).inc()
            except BudgetSpent as error:
                raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), "budget") from error
            except NotLeading as error:
                raise Refused(grpc.StatusCode.UNAVAILABLE, str(error), "standby") from error
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    async def _hedged(self, wish: Wish, kind: _Kind, endpoint: Endpoint, tried: list[Endpoint]) -> Answer:
        """One attempt, and a second beside it where the first is late and another machine is there."""
        self._hedges.sent()
        first = self._start(wish, kind, endpoint)
        late = hedge_after_seconds(kind.latencies.percentiles, self._left(wish))
        if late is None:
            return await asyncio.shield(first)
        done, _ = await asyncio.wait({first}, timeout=late)
        may = len(tried) < self._config.retry.attempts and self._endpoints.others(endpoint)
        if done or not (may and self._hedges.take()):
            return await asyncio.shield(first)
        other = self._endpoints.choose(tried)
        if other is None or other is endpoint:
            return await asyncio.shield(first)
        tried.append(other)
        second = self._start(wish, kind, other)
        done, running = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        if all(task.exception() is not None for task in done) and running:
            done, _ = await asyncio.wait(running)
        good = [task for task in done if task.exception() is None]
        winner = good[0] if good else first
        metrics.HEDGES.labels("none" if not good else "first" if winner is first else "second").inc()
        return await winner

    def _start(self, wish: Wish, kind: _Kind, endpoint: Endpoint) -> asyncio.Task[Answer]:
        """A task of its own: whoever asked may give up, and what the machine does is settled all the same."""
        task = asyncio.create_task(self._attempt(wish, kind, endpoint))
        self._attempts.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Answer]) -> None:
        self._attempts.discard(task)
        if not task.cancelled():
            # Retrieved: the loser of a hedge fails unheard.
            task.exception()

    async def _attempt(self, wish: Wish, kind: _Kind, endpoint: Endpoint) -> Answer:
        """Hold, send, settle. Raises AioRpcError, BudgetSpent, NotLeading."""
        left = self._left(wish)
        if left <= 0 or not endpoint.breaker.allows(self._clock()):
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="not sent: too late"
            )
        price = self._prices.of(endpoint.pool)
        ceiling = cost_nano(left * self._config.cores_per_request, price)
        await self._treasury.hold(wish.tenant, ceiling, wish.deadline_seconds)
        charged = ceiling
        begun = self._clock()
        endpoint.in_flight += 1
        try:
            call = endpoint.infer(wish.body, timeout=max(0.0, self._left(wish)))
            body: bytes = await call
            work = await self._work(call, body, self._clock() - begun)
            charged = cost_nano(work, price)
        except grpc.aio.AioRpcError as error:
            charged = min(ceiling, cost_nano(self._failed_core_seconds(error, self._clock() - begun, left), price))
            metrics.ATTEMPTS.labels(endpoint.pool, error.code().name).inc()
            self._endpoints.ended(endpoint, error.code() not in _SICK)
            raise
        finally:
            endpoint.in_flight -= 1
            self._treasury.settle(wish.tenant, ceiling, charged)
        seconds = self._clock() - begun
        kind.latencies.add(seconds)
        metrics.ATTEMPTS.labels(endpoint.pool, "OK").inc()
        self._endpoints.ended(endpoint, True)
        return Answer(body, work, charged)

    async def _work(self, call: grpc.aio.UnaryUnaryCall[bytes, bytes], body: bytes, seconds: float) -> float:
        """Core-seconds as the server tells them; by the clock where it does not."""
        for name, value in await call.trailing_metadata() or ():
            if name == WORK_CORE_SECONDS:
                return float(value)
        try:
            parameters = oip.ModelInferResponse.FromString(body).parameters
        except DecodeError:
            parameters = {}
        if "skyscraper_work_core_seconds" in parameters:
            return float(parameters["skyscraper_work_core_seconds"].double_param)
        metrics.UNMEASURED.labels("not_told").inc()
        return seconds * self._config.cores_per_request

    def _failed_core_seconds(self, error: grpc.aio.AioRpcError, seconds: float, left: float) -> float:
        """What a failed attempt can have taken at most."""
        told = {name for name, _ in error.trailing_metadata() or ()}
        if NOT_BEGUN in told or error.code() in _UNWORKED:
            return 0.0
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            metrics.UNMEASURED.labels("deadline").inc()
            return left * self._config.cores_per_request
        metrics.UNMEASURED.labels("failed").inc()
        return seconds * self._config.cores_per_request

    def _left(self, wish: Wish) -> float:
        return wish.deadline_seconds - self._clock()

    def _kind(self, body: bytes) -> _Kind:
        key = (model_name(body), len(body).bit_length())
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(key)
        return kind


def model_name(body: bytes) -> str:
    """Of a serialized ModelInferRequest, without parsing its tensors: `model_name` is field 1, and every known encoder
    writes fields in their order. Empty where it is not the first."""
    if len(body) < 2 or body[0] != 0x0A or body[1] >= 0x80:
        return ""
    return body[2 : 2 + body[1]].decode(errors="replace")
