"""The budget holds: gateways are killed between reserve and settle, again and again, under load from eight decoders.

Machines declare their work instead of doing it (`burst_processes.DeclaredMachine`): what is tested is the money, and
two cores could not spend any in a test's time. Everything else is real: two gateway processes, a broker, the decoders'
client. A crash costs what was open: what eight requests can cost at most, and a block. How much of the budget can be
used therefore depends on how long a gateway lives; here it is about twenty seconds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import burst_processes
import pytest
from burst_processes import DECLARED, DeclaredMachine, GatewayProcess, create_ledger, declared
from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.ledger import decode_balance
from skyscraper.control.budget import Balance
from skyscraper.localkafka import LocalBroker
from skyscraper.processes import spawn
from skyscraper.rpc.burst_client import BurstClient, BurstFailed

# 100 in full, about 40 minutes.
KILLS = int(os.environ.get("SKYSCRAPER_BUDGET_KILLS", "4"))

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240 + 60 * KILLS)]

DECODERS = 8
WORK_SECONDS, DEADLINE_SECONDS = 0.2, 0.35
CORE_SECONDS_PER_KILL = 170.0
# 0.01 USD per core-second.
USD_PER_CORE_HOUR, MICRO_PER_CORE_SECOND = 36.0, 10_000
BUDGET_USD = KILLS * CORE_SECONDS_PER_KILL * MICRO_PER_CORE_SECOND / 1e6
TENANT = "tenant-1"
LONGEST_LIFE_SECONDS = 30.0
SEED = 11


class Decoder(threading.Thread):
    """Sends one segment after the other, as a decoder's lane does, until the budget is spent for good."""

    def __init__(self, client: BurstClient) -> None:
        super().__init__(daemon=True)
        self._client = client
        self.charged_nano = 0
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        refused = 0
        while refused < 15:
            try:
                done = self._client.infer(
                    DECLARED,
                    declared(WORK_SECONDS),
                    tenant=TENANT,
                    estimated_core_seconds=WORK_SECONDS,
                    bid_per_byte=0.0,
                    deadline_seconds=DEADLINE_SECONDS,
                )
            except BurstFailed as error:
                self.outcomes[error.reason] += 1
                refused = refused + 1 if error.reason == "budget" else 0
                time.sleep(0.1)
            else:
                refused = 0
                self.outcomes["done"] += 1
                self.charged_nano += done.nano_usd


def load(targets: list[str]) -> dict[str, Any]:
    """Eight decoders, until all have given up. What they were charged, and how their calls ended."""
    decoders = [Decoder(BurstClient(targets, in_flight_bytes=1 << 20)) for _ in range(DECODERS)]
    for decoder in decoders:
        decoder.start()
    for decoder in decoders:
        decoder.join()
    outcomes = sum((decoder.outcomes for decoder in decoders), Counter[str]())
    return {"charged_nano": sum(decoder.charged_nano for decoder in decoders), "outcomes": outcomes}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path / "kafka") as broker:
        create_ledger(broker.bootstrap_servers)
        yield broker


def balance(broker: LocalBroker) -> Balance:
    client = {"bootstrap.servers": broker.bootstrap_servers}
    (table,) = read_compacted(client, topics.LEDGER, deadline_seconds=30).values()
    return decode_balance(table[TENANT.encode()])[1]


def leader(gateways: list[GatewayProcess]) -> GatewayProcess:
    """Whoever leads; waits for the standby to take over. Its takeover is timed by the caller."""
    deadline = time.monotonic() + 60
    while True:
        for one in gateways:
            if one.process is not None and one.process.poll() is None and one.leads:
                return one
        assert time.monotonic() < deadline, "\n".join(one.log for one in gateways)
        time.sleep(0.02)


def standing_by(gateways: list[GatewayProcess]) -> None:
    """Until both processes have started, so that what is timed is a take-over and not a start."""
    deadline = time.monotonic() + 180
    while not all(one.page("healthz") for one in gateways):
        assert time.monotonic() < deadline, "\n".join(one.log for one in gateways)
        time.sleep(0.1)


def test_the_budget_holds_through_kills_between_reserve_and_settle(tmp_path: Path, broker: LocalBroker) -> None:
    rng = random.Random(SEED)
    machines = [DeclaredMachine(tmp_path / "machines", f"machine-{number}") for number in range(2)]
    settings = {
        "pools": [{"targets": [one.target for one in machines], "usd_per_core_hour": USD_PER_CORE_HOUR}],
        "budgets": {TENANT: {"usd": BUDGET_USD, "window": "rolling", "rolling_seconds": 30 * 86_400}},
        "ledger": {"ahead_seconds": 0.1, "settle_seconds": 0.05},
        # A machine that runs this test slowly makes calls late, which is no reason to leave machines alone here.
        "retry": {"attempts": 1, "hedge_share": 0.0, "breaker_failures": 100_000},
    }
    gateways = [
        GatewayProcess(tmp_path / name, broker.bootstrap_servers, [], **settings) for name in ("gateway-a", "gateway-b")
    ]
    takeovers: list[float] = []
    told_path = tmp_path / "load.json"
    try:
        for machine in machines:
            machine.wait_ready()
        for gateway in gateways:
            gateway.start(wait=False)
        leader(gateways)
        # In a process of their own: threads of gRPC and the starting of processes do not go together.
        command = [sys.executable, __file__, str(told_path), *(one.target for one in gateways)]
        decoders = spawn(
            command, tmp_path / "load.log", environ={"PYTHONPATH": str(Path(burst_processes.__file__).parent)}
        )
        for _ in range(KILLS):
            standing_by(gateways)
            time.sleep(rng.uniform(0.2, LONGEST_LIFE_SECONDS))
            if decoders.poll() is not None:
                break
            victim = leader(gateways)
            victim.kill()
            killed = time.monotonic()
            if rng.random() < 0.5:
                # Started again at once, it may be quicker than the standby.
                victim.start(wait=False)
                leader(gateways)
            else:
                leader(gateways)
                takeovers.append(time.monotonic() - killed)
                victim.start(wait=False)
        assert decoders.wait(240 + 60 * KILLS) == 0, "the budget is not spent"
        answered = json.loads(told_path.read_text())
        # Settled work is durable after a moment.
        time.sleep(1.0)
        booked = balance(broker)
    finally:
        for gateway in gateways:
            gateway.close()
    worked = sum(machine.stop()["work_core_seconds"] for machine in machines) * MICRO_PER_CORE_SECOND
    charged = answered["charged_nano"] / 1000
    budget = BUDGET_USD * 1e6
    told = {
        "kills": KILLS,
        "budget_usd": BUDGET_USD,
        "worked_share": round(worked / budget, 4),
        "settled_share": round(booked.settled_total_micro_usd / budget, 4),
        "forfeited_share": round(booked.forfeited_total_micro_usd / budget, 4),
        "answered_share": round(charged / budget, 4),
        "takeover_seconds": [round(one, 2) for one in takeovers],
        "outcomes": answered["outcomes"],
    }
    print(json.dumps(told))
    # One micro-dollar of rounding for every balance that was read back.
    rounding = 2 * KILLS + 2
    assert worked <= budget
    assert booked.settled_total_micro_usd + booked.forfeited_total_micro_usd <= budget + rounding
    # Everything that was done is in the books, as measured or as what a crash left open.
    assert worked <= booked.settled_total_micro_usd + booked.forfeited_total_micro_usd + rounding
    assert charged <= booked.settled_total_micro_usd + booked.forfeited_total_micro_usd + rounding
    assert booked.settled_total_micro_usd >= 0.97 * budget
    assert all(seconds < 5.0 for seconds in takeovers)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(load(sys.argv[2:])))
