"""What KEDA is told of each pool over time."""

from __future__ import annotations

from skyscraper_burst.config import PoolConfig
from skyscraper_burst.demand import Demand
from skyscraper_burst.shares import Shares

PRICES = {"cheap": 1, "dear": 2}


class Situation:
    """Two pools of at most four machines, for eight core-seconds each, that take 60 s to start; a clock of its own."""

    def __init__(self) -> None:
        self.now_seconds = 0.0
        self.ready = {"cheap": 0, "dear": 0}
        pools = [
            PoolConfig.model_validate({"name": name, "most_machines": 4, "cold_start_seconds": 60.0}) for name in PRICES
        ]
        self.shares = Shares(
            pools, price=PRICES.__getitem__, ready=self.ready.__getitem__, clock=lambda: self.now_seconds
        )

    def wait(self, seconds: float, waiting_core_seconds: float) -> dict[str, float]:
        for _ in range(round(seconds)):
            self.now_seconds += 1.0
            self.shares.update(waiting_core_seconds)
        return {name: self.shares.core_seconds(name) for name in PRICES}


def test_an_ordinary_start_wakes_no_dearer_pool() -> None:
    given = Situation()
    assert given.wait(100, 20.0) == {"cheap": 20.0, "dear": 0.0}
    given.ready["cheap"] = 3
    assert given.wait(500, 20.0) == {"cheap": 20.0, "dear": 0.0}


def test_a_pool_that_gets_no_machines_is_passed_over_until_it_has_them() -> None:
    given = Situation()
    assert given.wait(130, 20.0) == {"cheap": 20.0, "dear": 20.0}
    given.ready["cheap"] = 3
    assert given.wait(2, 20.0) == {"cheap": 20.0, "dear": 0.0}


def test_a_calm_time_forgives_a_pool() -> None:
    given = Situation()
    given.wait(130, 20.0)
    given.wait(2, 0.0)
    assert given.wait(2, 20.0) == {"cheap": 20.0, "dear": 0.0}


def test_nothing_waits_once_the_last_request_has_ended() -> None:
    demand = Demand(30.0, lambda: 0.0)
    for work in (0.1, 0.2):
        demand.begin(work)
    for work in (0.1, 0.2):
        demand.end(work)
    assert demand.waiting_core_seconds == 0.0
