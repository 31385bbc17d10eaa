"""Dollars for burst machines: an account that cannot overspend, whatever happens to who keeps it.

An account spends from *blocks* that were made durable before. What is durable always covers what may be spent: a block
counts in full from the moment it is asked for, a request holds its ceiling before it is sent, and whoever finds a block
open after a crash counts it as spent. So every error under-uses the budget, and none overspends it.

Amounts are whole nano-dollars: the smallest detector's request costs about a third of a micro-dollar, and rounding each
one up would treble the bill. The ledger and the API speak micro-dollars, rounded up once per balance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Protocol
from zoneinfo import ZoneInfo

NANO_PER_MICRO = 1_000
NANO_PER_USD = 1_000_000_000
# Of a rolling window: what was spent leaves it one such part late, so that 99 % of the window's budget can be used.
_ROLLING_SLOTS = 100


class Window(Protocol):
    """Spending is kept by slot. What counts at a moment are the slots from `oldest` on."""

    def slot(self, now_seconds: float) -> int:
        """Of a moment, in seconds since 1970. Never falls as time goes on."""
        ...

    def oldest(self, now_seconds: float) -> int: ...


@dataclass(frozen=True)
class RollingWindow:
    """The last so many seconds, at every moment. A slot counts until all of it has left the window."""

    seconds: float

    def slot(self, now_seconds: float) -> int:
        return math.floor(now_seconds / (self.seconds / _ROLLING_SLOTS))

    def oldest(self, now_seconds: float) -> int:
        return self.slot(now_seconds - self.seconds)


class Period(Enum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class CalendarWindow:
    """The current hour, day, week (from Monday) or month of a time zone. An hour that clocks repeat in autumn counts
    as one."""

    period: Period
    time_zone: str = "UTC"

    def slot(self, now_seconds: float) -> int:
        local = datetime.fromtimestamp(now_seconds, ZoneInfo(self.time_zone))
        day = local.toordinal()
        match self.period:
            case Period.HOUR:
                return day * 24 + local.hour
            case Period.DAY:
                return day
            case Period.WEEK:
                return (day - 1) // 7
            case Period.MONTH:
                return local.year * 12 + local.month

    def oldest(self, now_seconds: float) -> int:
        return self.slot(now_seconds)


@dataclass(frozen=True)
class Budget:
    micro_usd: int
    window: Window

    @property
    def nano_usd(self) -> int:
        return self.micro_usd * NANO_PER_MICRO


class Held(Enum):
    """What became of a wish to hold dollars."""

    YES = "yes"
    WAIT = "wait"
    """A block must be made durable first."""
    SPENT = "spent"
    """The budget has no room for it in this window."""


@dataclass
class Account:
    """One tenant's money. All changes go through the methods; none of them looks at a clock."""

    budget: Budget
    spent: dict[int, int] = field(default_factory=dict)
    """Nano-dollars by slot of the window."""
    open_nano: int = 0
    """Durable blocks, less what was spent of them; what requests hold is part of it."""
    held_nano: int = 0
    pending_nano: int = 0
    """A block that was asked for and is not durable yet."""
    settled_total_nano: int = 0
    forfeited_total_nano: int = 0
    overrun_total_nano: int = 0
    """Charged beyond what was held, though ceilings should make that impossible."""

    @property
    def free_nano(self) -> int:
        """What may be held at once."""
        return self.open_nano - self.held_nano

    def spent_nano(self, now_seconds: float) -> int:
        """In the present window."""
        oldest = self.budget.window.oldest(now_seconds)
        return sum(nano for slot, nano in self.spent.items() if slot >= oldest)

    def left_nano(self, now_seconds: float) -> int:
        """Room for further blocks."""
        return max(0, self.budget.nano_usd - self.spent_nano(now_seconds) - self.open_nano - self.pending_nano)

    def hold(self, nano: int, now_seconds: float) -> Held:
        """Set `nano` aside for one request, at most until `settle` or `release`."""
        if nano <= self.free_nano:
            self.held_nano += nano
            return Held.YES
        reachable = self.free_nano + self.pending_nano + self.left_nano(now_seconds)
        return Held.WAIT if nano <= reachable else Held.SPENT

    def settle(self, held_nano: int, cost_nano: int, now_seconds: float) -> None:
        """A request that held `held_nano` cost `cost_nano`; the rest can be held again."""
        slot = self.budget.window.slot(now_seconds)
        self.held_nano -= held_nano
        self.overrun_total_nano += max(0, cost_nano - held_nano)
        self.open_nano = max(self.held_nano, self.open_nano - cost_nano)
        self.spent[slot] = self.spent.get(slot, 0) + cost_nano
        self.settled_total_nano += cost_nano

    def release(self, held_nano: int) -> None:
        self.held_nano -= held_nano

    def block_nano(self, now_seconds: float, *, waiting_nano: int, ahead_nano: int, most_nano: int) -> int:
        """The block to ask for now: what waiting requests miss and what is expected next, in whole micro-dollars; 0 for
        none. `most_nano`: a crash may cost that much; only requests that wait get more."""
        short = waiting_nano + ahead_nano - self.free_nano - self.pending_nano
        if short <= 0 or self.free_nano + self.pending_nano >= waiting_nano + ahead_nano // 2:
            return 0
        missing = max(0, waiting_nano - self.free_nano - self.pending_nano)
        wanted = max(min(short, most_nano), missing)
        left = self.left_nano(now_seconds)
        return min(-(-wanted // NANO_PER_MICRO), left // NANO_PER_MICRO) * NANO_PER_MICRO

    def ask(self, nano: int) -> None:
        """A block is on its way to the ledger."""
        self.pending_nano += nano

    def grant(self, nano: int) -> None:
        """A block that was asked for is durable."""
        self.pending_nano -= nano
        self.open_nano += nano

    def set_budget(self, budget: Budget, now_seconds: float) -> None:
        """From now on. Another window has other slots: what the old one counted all counts as spent now. What is open
        and not held shrinks with a smaller budget."""
        if budget.window != self.budget.window:
            counted = self.spent_nano(now_seconds)
            self.spent = {budget.window.slot(now_seconds): counted} if counted else {}
        self.budget = budget
        room = budget.nano_usd - self.spent_nano(now_seconds) - self.pending_nano
        self.open_nano = max(self.held_nano, min(self.open_nano, room))

    def forget_old(self, now_seconds: float) -> None:
        """Drop slots that count no longer."""
        oldest = self.budget.window.oldest(now_seconds)
        self.spent = {slot: nano for slot, nano in self.spent.items() if slot >= oldest}

    def balance(self) -> Balance:
        """What the ledger is to hold, the block that was asked for included."""
        return Balance(
            self.budget,
            _micro(self.open_nano + self.pending_nano),
            {slot: _micro(nano) for slot, nano in sorted(self.spent.items()) if nano},
            _micro(self.settled_total_nano),
            _micro(self.forfeited_total_nano),
        )


@dataclass(frozen=True)
class Balance:
    """An account as the ledger holds it, in micro-dollars."""

    budget: Budget
    open_micro_usd: int
    spent_micro_usd: Mapping[int, int]
    settled_total_micro_usd: int
    forfeited_total_micro_usd: int


def recovered(balance: Balance, now_seconds: float) -> Account:
    """The account of a ledger's newest balance, after whoever wrote it is gone: what was open counts as spent."""
    spent = {slot: micro * NANO_PER_MICRO for slot, micro in balance.spent_micro_usd.items()}
    forfeited = balance.open_micro_usd * NANO_PER_MICRO
    if forfeited:
        slot = balance.budget.window.slot(now_seconds)
        spent[slot] = spent.get(slot, 0) + forfeited
    return Account(
        balance.budget,
        spent,
        settled_total_nano=balance.settled_total_micro_usd * NANO_PER_MICRO,
        forfeited_total_nano=balance.forfeited_total_micro_usd * NANO_PER_MICRO + forfeited,
    )


def cost_nano(core_seconds: float, price_nano_per_core_second: int) -> int:
    """Rounded up."""
    return math.ceil(core_seconds * price_nano_per_core_second)


class Pace:
    """Nano-dollars that are spent per second, lately: what the next blocks have to cover."""

    def __init__(self, memory_seconds: float) -> None:
        self._memory_seconds = memory_seconds
        self._sum = 0.0
        self._at_seconds = 0.0

    def add(self, nano: int, now_seconds: float) -> None:
        self._decay(now_seconds)
        self._sum += nano

    def nano_per_second(self, now_seconds: float) -> float:
        self._decay(now_seconds)
        return self._sum / self._memory_seconds

    def _decay(self, now_seconds: float) -> None:
        self._sum *= math.exp(-max(0.0, now_seconds - self._at_seconds) / self._memory_seconds)
        self._at_seconds = max(now_seconds, self._at_seconds)


def _micro(nano: int) -> int:
    """Rounded up."""
    return -(-nano // NANO_PER_MICRO)
