"""A gateway in front of declared machines, on a broker of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from burst_processes import DeclaredMachine, GatewayProcess, create_ledger
from skyscraper.localkafka import LocalBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One ledger for all: every test has a tenant of its own."""
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as broker:
        create_ledger(broker.bootstrap_servers)
        yield broker


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:60]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[DeclaredMachine]]:
    found = [DeclaredMachine(tmp_path / "machines", f"machine-{number}") for number in range(2)]
    try:
        for one in found:
            one.wait_ready()
        yield found
    finally:
        for one in found:
            one.process.kill()
            one.process.wait(10)


@pytest.fixture
def gateway(
    tmp_path: Path, broker: LocalBroker, machines: list[DeclaredMachine]
) -> Iterator[Callable[..., GatewayProcess]]:
    """A gateway of that name, not started yet."""
    made: list[GatewayProcess] = []

    def make(name: str = "gateway-a", **settings: object) -> GatewayProcess:
        targets = [one.target for one in machines]
        made.append(GatewayProcess(tmp_path / name, broker.bootstrap_servers, targets, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
