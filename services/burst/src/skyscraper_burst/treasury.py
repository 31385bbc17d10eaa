"""Everybody's money, between requests that hold it (event loop) and the thread that makes it durable.

`hold` answers at once from blocks that are durable already. Only where these have run out a request waits for the next
commit; blocks are asked for ahead so that this is rare, and counted where it happens.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from skyscraper.bus.ledger import encode_balance, is_tenant
from skyscraper.control.budget import NANO_PER_USD, Account, Balance, Budget, Held, Pace, recovered
from skyscraper.errors import SkyscraperError
from skyscraper.v1 import burst_pb2

from skyscraper_burst import metrics

# A pace over less would follow single requests; over more, a burst would outrun it.
_PACE_SECONDS = 1.0
# Of the largest hold, with every further one: after some hundred smaller ones it is forgotten.
_LARGEST_FADES = 0.99
# Accounts live in memory and in the ledger for ever; names come from clients.
_MOST_TENANTS = 10_000


class NotLeading(SkyscraperError):
    """Another gateway leads; ask that one."""

    retriable = True


class BudgetSpent(SkyscraperError):
    """The tenant's budget has no room for the request in this window."""


@dataclass(frozen=True)
class BlockTerms:
    """How far ahead blocks reach: see `LedgerConfig`."""

    ahead_seconds: float
    most_block_share: float


@dataclass(frozen=True)
class _Waiter:
    """A request that waits for a block."""

    tenant: str
    nano: int
    future: asyncio.Future[None]


@dataclass
class _Tenant:
    account: Account
    sequence: int = 0
    largest_nano: int = 0
    """That a request held, lately."""
    pace: Pace = field(default_factory=lambda: Pace(_PACE_SECONDS))
    waiters: deque[_Waiter] = field(default_factory=deque)
    dirty: bool = False
    event: burst_pb2.LedgerEvent.ValueType = burst_pb2.LEDGER_EVENT_SETTLE


@dataclass(frozen=True)
class Write:
    """One balance on its way to the ledger, and the block that is usable once it is there."""

    tenant: str
    value: bytes
    block_nano: int


class Treasury:
    """Requests' side in the event loop; `take_over`, `writes`, `committed` and `depose` are the keeper thread's."""

    def __init__(
        self,
        budgets: Mapping[str, Budget],
        default: Budget | None,
        terms: BlockTerms,
        *,
        wake: Callable[[bool], None] = lambda urgent: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """wake: tells the keeper that there is something to write; urgent where requests wait for it."""
        self._budgets = dict(budgets)
        self._default = default
        self._terms = terms
        self._wake = wake
        self._wall = wall
        self._lock = threading.Lock()
        self._tenants: dict[str, _Tenant] | None = None
        # Found in the ledger, until this gateway's own entries are durable.
        self._taken: dict[str, _Tenant] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._durable: list[asyncio.Future[None]] = []

    @property
    def leading(self) -> bool:
        return self._tenants is not None

    def set_wake(self, wake: Callable[[bool], None]) -> None:
        self._wake = wake

    def tenants(self) -> list[str]:
        with self._lock:
            return sorted(self._tenants or ())

    def label(self, tenant: str) -> str:
        """The tenant's name where it has an account: names come from clients, and metrics must stay bounded."""
        tenants = self._tenants
        return tenant if tenants is not None and tenant in tenants else "unknown"

    async def hold(self, tenant: str, nano: int, deadline_seconds: float) -> None:
        """Set dollars aside, if need be after the next commit (until `deadline_seconds` on the monotonic clock).
        Raises NotLeading, BudgetSpent."""
        with self._lock:
            one = self._of(tenant)
            now = self._wall()
            one.largest_nano = max(nano, int(one.largest_nano * _LARGEST_FADES))
            held = one.account.hold(nano, now)
            if held is Held.SPENT:
                raise _spent(tenant, nano)
            waiter: _Waiter | None = None
            if held is Held.WAIT:
                self._loop = asyncio.get_running_loop()
                waiter = _Waiter(tenant, nano, self._loop.create_future())
                one.waiters.append(waiter)
            if waiter is not None or self._block(one, now):
                self._wake(waiter is not None)
        if waiter is None:
            return
        metrics.BLOCK_WAITS.labels(tenant).inc()
        try:
            async with asyncio.timeout(deadline_seconds - time.monotonic()):
                await waiter.future
        except TimeoutError as error:
            raise NotLeading("the ledger was not written within the request's deadline") from error

    def settle(self, tenant: str, held_nano: int, cost_nano: int) -> None:
        with self._lock:
            one = None if self._tenants is None else self._tenants.get(tenant)
            # After another gateway has taken over, what this one held counts as spent there.
            if one is None or one.account.held_nano < held_nano:
                return
            before = one.account.overrun_total_nano
            now = self._wall()
            one.account.settle(held_nano, cost_nano, now)
            one.pace.add(cost_nano, now)
            metrics.SPENT_USD.labels(tenant).inc(cost_nano / NANO_PER_USD)
            metrics.OVERRUN_USD.labels(tenant).inc((one.account.overrun_total_nano - before) / NANO_PER_USD)
            if not one.dirty:
                one.dirty = True
                self._wake(False)

    def release(self, tenant: str, held_nano: int) -> None:
        with self._lock:
            one = None if self._tenants is None else self._tenants.get(tenant)
            if one is not None and one.account.held_nano >= held_nano:
                one.account.release(held_nano)

    def balance(self, tenant: str) -> tuple[Budget, int, int, int]:
        """Budget, and nano-dollars spent in the window, open, and left to spend (free open ones included)."""
        with self._lock:
            account = self._of(tenant).account
            now = self._wall()
            left = account.left_nano(now) + account.free_nano + account.pending_nano
            return account.budget, account.spent_nano(now), account.open_nano, left

    async def set_budget(self, tenant: str, budget: Budget) -> None:
        """Returns once it is durable. Raises NotLeading."""
        with self._lock:
            if self._tenants is None:
                raise NotLeading("another gateway holds the ledger")
            one = self._tenants.setdefault(tenant, _Tenant(Account(budget)))
            one.account.set_budget(budget, self._wall())
            one.dirty, one.event = True, burst_pb2.LEDGER_EVENT_BUDGET
            self._loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = self._loop.create_future()
            self._durable.append(future)
            self._wake(True)
        await future

    # The keeper thread's side.

    def take_over(self, ledger: Mapping[str, tuple[int, Balance]]) -> None:
        """From the ledger's newest balances. Nothing can be held before the first `committed`: see `serve`."""
        now = self._wall()
        found: dict[str, _Tenant] = {}
        for name, (sequence, balance) in ledger.items():
            one = _Tenant(recovered(balance, now), sequence)
            one.account.forget_old(now)
            forfeited = balance.open_micro_usd
            one.dirty, one.event = forfeited > 0, burst_pb2.LEDGER_EVENT_FORFEIT
            metrics.FORFEITED_USD.labels(name).inc(forfeited / 1e6)
            found[name] = one
        for name, budget in self._budgets.items():
            if name not in found:
                found[name] = _Tenant(Account(budget))
        self._taken = found

    def serve(self) -> None:
        """What `take_over` found is durable as this gateway's own: requests may come."""
        with self._lock:
            self._tenants = self._taken

    def writes(self, *, final: bool = False) -> list[Write]:
        """Balances that changed, and blocks that are wanted; with `final`, all open money is given back."""
        with self._lock:
            tenants = self._taken if self._tenants is None else self._tenants
            now = self._wall()
            found = []
            for name, one in tenants.items():
                block = 0 if final or self._tenants is None else self._block(one, now)
                if not (one.dirty or block or (final and one.account.open_nano)):
                    continue
                one.account.forget_old(now)
                one.account.ask(block)
                if final:
                    one.account.open_nano, one.event = one.account.held_nano, burst_pb2.LEDGER_EVENT_RELEASE
                elif block and one.event == burst_pb2.LEDGER_EVENT_SETTLE:
                    one.event = burst_pb2.LEDGER_EVENT_RESERVE
                one.sequence += 1
                value = encode_balance(
                    name, one.account.balance(), sequence=one.sequence, event=one.event, now_seconds=now
                )
                found.append(Write(name, value, block))
                one.dirty, one.event = False, burst_pb2.LEDGER_EVENT_SETTLE
            return found

    def committed(self, writes: list[Write]) -> None:
        """They are durable: blocks can be spent, and who waited for them goes on."""
        with self._lock:
            if self._tenants is None:
                return
            now = self._wall()
            for write in writes:
                one = self._tenants[write.tenant]
                one.account.grant(write.block_nano)
                self._serve_waiters(one, now)
                left = one.account.left_nano(now) + one.account.free_nano + one.account.pending_nano
                metrics.LEFT_USD.labels(write.tenant).set(left / NANO_PER_USD)
                metrics.OPEN_USD.labels(write.tenant).set(one.account.open_nano / NANO_PER_USD)
            durable, self._durable = self._durable, []
        for future in durable:
            self._tell(future, None)

    def depose(self, reason: str) -> None:
        """Another gateway leads, or the ledger cannot be reached: nothing more is held."""
        with self._lock:
            tenants, self._tenants = self._tenants or {}, None
            waiting = [waiter.future for one in tenants.values() for waiter in one.waiters] + self._durable
            self._durable = []
        for future in waiting:
            self._tell(future, NotLeading(reason))

    def _of(self, tenant: str) -> _Tenant:
        if self._tenants is None:
            raise NotLeading("another gateway holds the ledger")
        one = self._tenants.get(tenant)
        if one is None:
            if self._default is None or not is_tenant(tenant) or len(self._tenants) >= _MOST_TENANTS:
                raise BudgetSpent(f"tenant {tenant!r:.70} has no burst budget: set one, or default_budget")
            one = self._tenants[tenant] = _Tenant(Account(self._default))
        return one

    def _serve_waiters(self, one: _Tenant, now: float) -> None:
        """In their order, as far as the money goes."""
        while one.waiters:
            waiter = one.waiters[0]
            if not waiter.future.done():
                held = one.account.hold(waiter.nano, now)
                if held is Held.WAIT:
                    self._wake(True)
                    return
                if held is Held.SPENT:
                    self._tell(waiter.future, _spent(waiter.tenant, waiter.nano))
                elif self._loop is not None:
                    self._loop.call_soon_threadsafe(self._hand_over, waiter)
            one.waiters.popleft()

    def _hand_over(self, waiter: _Waiter) -> None:
        """What is held for it is its own; back where it has given up meanwhile."""
        if waiter.future.done():
            self.release(waiter.tenant, waiter.nano)
        else:
            waiter.future.set_result(None)

    def _block(self, one: _Tenant, now: float) -> int:
        account = one.account
        waiting = sum(waiter.nano for waiter in one.waiters if not waiter.future.done())
        # A tenant that spends has room for two more requests beside its pace: what the next ones hold comes back with
        # their answers.
        pace = one.pace.nano_per_second(now)
        ahead = int(pace * self._terms.ahead_seconds) + 2 * one.largest_nano if pace >= 1 else 0
        return account.block_nano(
            now,
            waiting_nano=waiting,
            ahead_nano=ahead,
            most_nano=int(account.budget.nano_usd * self._terms.most_block_share),
        )

    def _tell(self, future: asyncio.Future[None], error: Exception | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_finish, future, error)


def _finish(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _spent(tenant: str, nano: int) -> BudgetSpent:
    return BudgetSpent(f"the burst budget of {tenant} has no room for {nano / NANO_PER_USD:.6f} USD now")
