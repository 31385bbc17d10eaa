"""The real server process in front of tiny models, and Triton's own client."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from skyscraper.processes import free_ports, spawn, tail
from tiny_models import write_repository
from tritonclient.grpc import InferenceServerClient

_START_SECONDS = 60.0


class Server:
    """`python -m skyscraper_inference` with its configuration; its ports stay over restarts."""

    def __init__(self, folder: Path, repository: Path, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._metrics_port = free_ports(2)
        self._config = folder / "inference.toml"
        self._log = folder / "log"
        values: dict[str, Any] = {
            "port": self.port,
            "repository": str(repository),
            "instances": 2,
            "warmup_shapes": [{"height": 32, "width": 32}],
            "metrics": {"port": self._metrics_port},
            "log_format": "json",
        }
        self._config.write_text(tomli_w.dumps(values | settings))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return tail(self._log, lines=50)

    def start(self, *, wait: bool = True) -> Server:
        self._process = spawn([sys.executable, "-m", "skyscraper_inference", "--config", str(self._config)], self._log)
        until = time.monotonic() + _START_SECONDS
        while wait and not self.page("readyz"):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 40) -> int:
        """The exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def page(self, name: str) -> str:
        """A page of its HTTP face, empty while that does not answer well."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/{name}", timeout=2) as answer:  # noqa: S310
                return str(answer.read().decode())
        except OSError:
            return ""

    def client(self) -> Any:
        return InferenceServerClient(self.target)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), "echo", "picture", "lookup", "slow", "broken")


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Server]:
    """For tests that leave the server as they found it."""
    server = Server(tmp_path_factory.mktemp("server"), repository)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def new_server(tmp_path: Path, repository: Path) -> Iterator[Callable[..., Server]]:
    """A server of the test's own, not started yet."""
    made: list[Server] = []

    def make(**settings: Any) -> Server:
        settings = {"models": ["echo", "slow"], **settings}
        made.append(Server(tmp_path / f"server-{len(made)}", settings.pop("folder", repository), **settings))
        return made[-1]

    yield make
    for server in made:
        server.close()
