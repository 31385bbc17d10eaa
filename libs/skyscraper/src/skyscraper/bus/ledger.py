"""Balances on the bus: between `control.budget` and the values of sky.ledger."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from skyscraper.control.budget import Balance, Budget, CalendarWindow, Period, RollingWindow, Window
from skyscraper.errors import SkyscraperError
from skyscraper.v1 import burst_pb2

# Of streams whose entry names none, those without an entry, and requests that name none.
DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}")
_PERIODS = {
    Period.HOUR: burst_pb2.CALENDAR_PERIOD_HOUR,
    Period.DAY: burst_pb2.CALENDAR_PERIOD_DAY,
    Period.WEEK: burst_pb2.CALENDAR_PERIOD_WEEK,
    Period.MONTH: burst_pb2.CALENDAR_PERIOD_MONTH,
}
# A slot of a shorter window would be over before its ledger entry is durable.
_SHORTEST_WINDOW_SECONDS = 1.0


class LedgerError(SkyscraperError):
    """A budget or a ledger entry that cannot be used."""


def is_tenant(text: str) -> bool:
    """Whether it can be the name of a tenant, as `sky.streams` names them."""
    return _TENANT.fullmatch(text) is not None


def encode_budget(budget: Budget) -> burst_pb2.Budget:
    window = budget.window
    if isinstance(window, RollingWindow):
        return burst_pb2.Budget(micro_usd=budget.micro_usd, rolling_seconds=window.seconds)
    if isinstance(window, CalendarWindow):
        return burst_pb2.Budget(
            micro_usd=budget.micro_usd, calendar=_PERIODS[window.period], time_zone=window.time_zone
        )
    raise TypeError(f"no ledger entry can hold a {type(window).__name__}")


def decode_budget(message: burst_pb2.Budget) -> Budget:
    """Raises LedgerError, naming the field."""
    if message.micro_usd < 0:
        raise LedgerError(f"budget.micro_usd is {message.micro_usd}: 0 or more")
    return Budget(message.micro_usd, _window(message))


def _window(message: burst_pb2.Budget) -> Window:
    if message.WhichOneof("window") == "rolling_seconds":
        if not _SHORTEST_WINDOW_SECONDS <= message.rolling_seconds < float("inf"):
            raise LedgerError(
                f"budget.rolling_seconds is {message.rolling_seconds:g}: at least {_SHORTEST_WINDOW_SECONDS:g}"
            )
        return RollingWindow(message.rolling_seconds)
    periods = {value: period for period, value in _PERIODS.items()}
    if message.calendar not in periods:
        raise LedgerError("budget.window is missing: set rolling_seconds, or calendar to hour, day, week or month")
    zone = message.time_zone or "UTC"
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise LedgerError(f"budget.time_zone {zone!r} is not a time zone: use an IANA name") from error
    return CalendarWindow(periods[message.calendar], zone)


def encode_balance(
    tenant: str, balance: Balance, *, sequence: int, event: burst_pb2.LedgerEvent.ValueType, now_seconds: float
) -> bytes:
    return burst_pb2.BurstEntry(
        balance=burst_pb2.Balance(
            tenant=tenant,
            written_time=_timestamp(now_seconds),
            sequence=sequence,
            event=event,
            budget=encode_budget(balance.budget),
            open_micro_usd=balance.open_micro_usd,
            spent=[burst_pb2.SlotSpend(slot=slot, micro_usd=micro) for slot, micro in balance.spent_micro_usd.items()],
            settled_total_micro_usd=balance.settled_total_micro_usd,
            forfeited_total_micro_usd=balance.forfeited_total_micro_usd,
        )
    ).SerializeToString(deterministic=True)


def decode_balance(value: bytes) -> tuple[int, Balance]:
    """Sequence and balance. Raises LedgerError: money whose owner cannot be read must not be spent again."""
    try:
        entry = burst_pb2.BurstEntry.FromString(value)
    except DecodeError as error:
        raise LedgerError(f"a value of sky.ledger is no BurstEntry: {error}") from error
    if not entry.HasField("balance"):
        raise LedgerError("a value of sky.ledger under a tenant's name holds no balance")
    found = entry.balance
    return found.sequence, Balance(
        decode_budget(found.budget),
        found.open_micro_usd,
        {one.slot: one.micro_usd for one in found.spent},
        found.settled_total_micro_usd,
        found.forfeited_total_micro_usd,
    )


def encode_leader(instance: str, now_seconds: float, waiting_core_seconds: float) -> bytes:
    leader = burst_pb2.Leader(
        instance=instance, written_time=_timestamp(now_seconds), waiting_core_seconds=waiting_core_seconds
    )
    return burst_pb2.BurstEntry(leader=leader).SerializeToString(deterministic=True)


def decode_leader(value: bytes) -> burst_pb2.Leader | None:
    """None for what is no leader's entry: it then counts as nobody's."""
    try:
        entry = burst_pb2.BurstEntry.FromString(value)
    except DecodeError:
        return None
    return entry.leader if entry.HasField("leader") else None


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp
