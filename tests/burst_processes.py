"""The burst gateway as a process, and machines for it whose work is declared instead of done."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import grpc.aio
import numpy as np
import tomli_w
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from numpy.typing import NDArray
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import topic_specs
from skyscraper.processes import free_ports, spawn, tail
from skyscraper.rpc.burst import WORK_CORE_SECONDS
from skyscraper.rpc.pings import ALLOW_PINGS
from skyscraper.rpc.tls import ServerTls, listen
from skyscraper.v1 import burst_pb2_grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

# The model of a declared machine.
DECLARED = "declared"
_START_SECONDS = 60.0


def create_ledger(bootstrap_servers: str) -> None:
    """The topics of an installation, the ledger among them."""
    specs = topic_specs(partitions=1, pipelines=(), retention_seconds=3600, retention_bytes_per_partition=1 << 28)
    create_topics({"bootstrap.servers": bootstrap_servers}, specs, replication_factor=1)


class GatewayProcess:
    """`python -m skyscraper_burst`; its ports stay over restarts."""

    def __init__(self, folder: Path, bootstrap_servers: str, targets: Sequence[str], **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._metrics_port = free_ports(2)
        self._config = folder / "burst.toml"
        self._log = folder / "log"
        values: dict[str, Any] = {
            "instance": folder.name,
            "port": self.port,
            "pools": [{"targets": list(targets)}] if targets else [],
            "metrics": {"port": self._metrics_port},
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "log_format": "json",
        }
        self._config.write_text(tomli_w.dumps(values | settings))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return tail(self._log, lines=50)

    def start(self, *, wait: bool = True) -> GatewayProcess:
        self.process = spawn([sys.executable, "-m", "skyscraper_burst", "--config", str(self._config)], self._log)
        if wait:
            self.wait_leading()
        return self

    def wait_leading(self, seconds: float = _START_SECONDS) -> None:
        until = time.monotonic() + seconds
        while not self.leads:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)

    @property
    def leads(self) -> bool:
        return self.metric("skyscraper_burst_leading") == 1

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 40) -> int:
        """The exit status."""
        assert self.process is not None
        return self.process.wait(seconds)

    def page(self, name: str) -> str:
        """A page of its HTTP face, empty while that does not answer well."""
        try:
            with urlopen(f"http://127.0.0.1:{self._metrics_port}/{name}", timeout=2) as answer:  # noqa: S310
                return str(answer.read().decode())
        except OSError:
            return ""

    def metric(self, name: str) -> float:
        """Sum over its labels."""
        lines = [line for line in self.page("metrics").splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.target)


def money(channel: grpc.Channel) -> burst_pb2_grpc.BurstServiceStub:
    return burst_pb2_grpc.BurstServiceStub(channel)


def declared(work_seconds: float, size_bytes: int = 8) -> dict[str, NDArray[np.float64]]:
    """Inputs for a declared machine: how much work to declare, and so many bytes."""
    return {"x": np.full((1, max(1, size_bytes // 8)), work_seconds)}


def request(work_seconds: float, size_bytes: int = 8) -> oip.ModelInferRequest:
    """The same as a message."""
    x = declared(work_seconds, size_bytes)["x"]
    message = oip.ModelInferRequest(model_name=DECLARED)
    message.inputs.add(name="x", datatype="FP64", shape=x.shape)
    message.raw_input_contents.append(x.tobytes())
    return message


class DeclaredMachine:
    """A process that answers every request after the work it names, as a machine with enough cores would. On SIGTERM
    it writes down what it did: `work_core_seconds` and `requests`."""

    def __init__(self, folder: Path, name: str, *, tls: ServerTls | None = None) -> None:
        self.port = free_ports(1)[0]
        self._told = folder / f"{name}.json"
        self._log = folder / f"{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        words = [str(self.port), str(self._told), "" if tls is None else tls.model_dump_json()]
        self.process = spawn([sys.executable, __file__, *words], self._log)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_ready(self) -> None:
        channel = grpc.insecure_channel(self.target)
        grpc.channel_ready_future(channel).result(_START_SECONDS)
        channel.close()

    def stop(self) -> dict[str, float]:
        """What it did."""
        self.process.terminate()
        self.process.wait(10)
        return dict(json.loads(self._told.read_text()))


class _Declared(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.work = 0.0
        self.requests = 0

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        (seconds,) = struct.unpack("<d", request.raw_input_contents[0][:8])
        self.work += seconds
        self.requests += 1
        await asyncio.sleep(seconds)
        context.set_trailing_metadata(((WORK_CORE_SECONDS, repr(seconds)),))
        return oip.ModelInferResponse(model_name=request.model_name, id=request.id)


async def _serve(port: int, tls: ServerTls | None) -> dict[str, float]:
    servicer, server = _Declared(), grpc.aio.server(options=ALLOW_PINGS)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    listen(server, "127.0.0.1", port, tls)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(None)
    return {"work_core_seconds": servicer.work, "requests": servicer.requests}


if __name__ == "__main__":
    tls = ServerTls.model_validate_json(sys.argv[3]) if sys.argv[3] else None
    done = asyncio.run(_serve(int(sys.argv[1]), tls))
    Path(sys.argv[2]).write_text(json.dumps(done))
