"""The demo's burst pool: two inference processes with a price, behind a gateway with a budget, that are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from skyscraper.bus.ledger import DEFAULT_TENANT
from skyscraper.bus.reports import Seen
from skyscraper.demo.stack import Stack
from skyscraper.v1 import burst_pb2, burst_pb2_grpc, report_pb2

# Of a spot machine's core: see `simulate/prices.py`.
USD_PER_CORE_HOUR = 0.025
MACHINES = ("spot-1", "spot-2")
# The budget buys this part of what the pool can do in the day: the burst pool shares this machine's cores.
_BUDGET_SHARE = 0.15
_ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Interruption:
    """At this share of the day the machine is taken away: told to go, or killed without a word. Another comes."""

    day_share: float
    machine: str
    told: bool


# After the morning's rush and in the evening's.
SCRIPT = (Interruption(0.4, MACHINES[0], told=True), Interruption(0.75, MACHINES[1], told=False))


@dataclass(frozen=True)
class BurstResult:
    """What the burst pool did for a day."""

    budget_usd: float
    spent_usd: float
    segments: int
    """Whose stateless operators ran there."""
    came_back: int
    """Segments that the pool did after all, since a machine was taken away or late."""
    interruptions: int


def budget_usd(pool_cores: float, day_seconds: float) -> float:
    """Whole micro-dollars."""
    usd = _BUDGET_SHARE * pool_cores * day_seconds / 3600 * USD_PER_CORE_HOUR
    return max(1, round(usd * 1e6)) / 1e6


def add_burst_pool(stack: Stack, *, models: Sequence[str], usd: float) -> None:
    """Machines and gateway, to be started with everything else; before the decoders."""
    for name in MACHINES:
        stack.add_burst_machine(name, models=models)
    stack.add_gateway(
        pools=[{"targets": list(stack.burst_targets.values()), "usd_per_core_hour": USD_PER_CORE_HOUR}],
        budgets={DEFAULT_TENANT: {"usd": usd}},
    )


class Interruptions:
    """Plays the script. Call `turn` often, from the thread that started the stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._coming = list(SCRIPT)
        self._going: list[str] = []
        self.done = 0

    def turn(self, day_share: float) -> None:
        for name in list(self._going):
            process = self._stack.services[name].process
            if process is not None and process.poll() is not None:
                self._going.remove(name)
                self._stack.start(name)
        while self._coming and self._coming[0].day_share <= day_share:
            one = self._coming.pop(0)
            process = self._stack.services[one.machine].process
            if process is None:
                continue
            self.done += 1
            if one.told:
                process.terminate()
                self._going.append(one.machine)
            else:
                self._stack.kill(one.machine)
                self._stack.start(one.machine)


def burst_result(stack: Stack, seen: Sequence[Seen], interruptions: int) -> BurstResult:
    """Of the processed segments given; what was spent is what the gateway's ledger says."""
    with grpc.insecure_channel(stack.gateway_targets[0]) as channel:
        balance = burst_pb2_grpc.BurstServiceStub(channel).GetBudget(
            burst_pb2.GetBudgetRequest(tenant=DEFAULT_TENANT), timeout=_ASK_SECONDS
        )
    decisions = [one.report.decision for one in seen]
    return BurstResult(
        balance.budget.micro_usd / 1e6,
        balance.spent_micro_usd / 1e6,
        sum(one.placement == report_pb2.PLACE_BURST for one in decisions),
        sum(bool(one.burst_failure) for one in decisions),
        interruptions,
    )
