"""Starting, killing and stopping an installation's processes."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from skyscraper.bus.admin import create_topics
from skyscraper.bus.profiles import register_pipeline
from skyscraper.bus.topics import topic_specs
from skyscraper.errors import SkyscraperError
from skyscraper.lakehouse.catalog import CatalogConfig
from skyscraper.localkafka import LocalBroker
from skyscraper.pipeline import load_pipeline
from skyscraper.processes import free_ports, spawn, stop, tail

# Imports and warm-up take seconds; on a machine that is busy with other things, minutes.
_READY_SECONDS = 180.0
_STOP_SECONDS = 25.0
_PROBE_SECONDS = 1.0


class StackError(SkyscraperError):
    """A process of the installation did not start or ended; the message holds the end of its log."""


@dataclass
class Service:
    """One process: what to start it with, and the process while it runs."""

    name: str
    module: str
    config_path: Path
    metrics_port: int
    process: subprocess.Popen[bytes] | None = None


class Stack:
    """Broker, inference, decoders and loader under one folder. Call from the main thread (see `spawn`)."""

    def __init__(
        self,
        folder: Path,
        *,
        partitions: int,
        pipelines: Sequence[str] = ("counting",),
        retention_seconds: float = 6 * 3600.0,
        retention_bytes_per_partition: int = 1 << 30,
        broker_settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.broker = LocalBroker(folder / "kafka", settings=broker_settings)
        self.services: dict[str, Service] = {}
        self.burst_targets: dict[str, str] = {}
        self.gateway_targets: list[str] = []
        self.catalog = CatalogConfig(warehouse_path=folder / "warehouse")
        self.retention_seconds = retention_seconds
        self.retention_bytes_per_partition = retention_bytes_per_partition
        self._partitions = partitions
        self._pipelines = pipelines
        self._inference_port = free_ports(1)[0]

    @property
    def client(self) -> dict[str, Any]:
        """librdkafka's settings to reach the broker, silent about its comings and goings: we cause them."""
        return {"bootstrap.servers": self.broker.bootstrap_servers, "log_level": 2}

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_broker(self) -> None:
        self.broker.start()
        specs = topic_specs(
            partitions=self._partitions,
            pipelines=self._pipelines,
            retention_seconds=self.retention_seconds,
            retention_bytes_per_partition=self.retention_bytes_per_partition,
        )
        create_topics(self.client, specs, replication_factor=1)
        for pipeline in self._pipelines:
            register_pipeline(self.client, load_pipeline(pipeline))

    def add_inference(self, *, models: Sequence[str] = (), **settings: Any) -> Service:
        values = {"port": self._inference_port, "models": list(models)}
        return self._add("inference", "skyscraper_inference", values | settings, kafka=False)

    def add_burst_machine(self, name: str, *, models: Sequence[str] = (), **settings: Any) -> Service:
        """A machine of the burst pool: an inference process that also takes whole segments."""
        port = free_ports(1)[0]
        self.burst_targets[name] = f"127.0.0.1:{port}"
        values = {"port": port, "models": list(models), "stages": list(self._pipelines), "instances": 1}
        return self._add(name, "skyscraper_inference", values | settings, kafka=False)

    def add_gateway(self, name: str = "gateway", **settings: Any) -> Service:
        """In front of all burst machines that were added before; decoders that are added later know it."""
        port = free_ports(1)[0]
        self.gateway_targets.append(f"127.0.0.1:{port}")
        values = {"instance": name, "port": port, "pools": [{"targets": list(self.burst_targets.values())}]}
        return self._add(name, "skyscraper_burst", values | settings)

    def add_decoder(self, name: str = "decoder", *, burst: Mapping[str, Any] | None = None, **settings: Any) -> Service:
        values: dict[str, Any] = {"instance": name, "inference": {"target": f"127.0.0.1:{self._inference_port}"}}
        if self.gateway_targets:
            values["burst"] = {"targets": list(self.gateway_targets), **(burst or {})}
        return self._add(name, "skyscraper_decoder", values | settings)

    def add_loader(self, name: str = "loader", **settings: Any) -> Service:
        values = {"instance": name, "catalog": {"warehouse_path": str(self.catalog.warehouse_path)}}
        return self._add(name, "skyscraper_loader", values | settings)

    def add_tuner(self, name: str = "tuner", *, pool_cores: float, **settings: Any) -> Service:
        values = {"instance": name, "pool_cores": pool_cores, "state_folder": str(self.folder / "tuner")}
        return self._add(name, "skyscraper_tuner", values | settings)

    def add_publisher(self, streams: Sequence[Mapping[str, Any]], name: str = "publisher", **settings: Any) -> Service:
        values = {
            "instance": name,
            "streams": [dict(stream) for stream in streams],
            "spill": {"folder": str(self.folder / "spill" / name)},
        }
        return self._add(name, "skyscraper_publisher", values | settings)

    def start(self, *names: str) -> None:
        """Start the named services (default: all) together; call `wait_ready` to wait for them."""
        for name in names or tuple(self.services):
            service = self.services[name]
            if service.process is None or service.process.poll() is not None:
                command = [sys.executable, "-m", service.module, "--config", str(service.config_path)]
                service.process = spawn(command, self.log_path(name))

    def wait_ready(self, *names: str) -> None:
        """Until each named service (default: all) says it is ready. Raises StackError."""
        deadline = time.monotonic() + _READY_SECONDS
        for name in names or tuple(self.services):
            while not self.is_ready(name):
                self.check(name)
                if time.monotonic() >= deadline:
                    raise StackError(f"{name} was not ready within {_READY_SECONDS:g} s; {self._log_end(name)}")
                time.sleep(0.05)

    def is_ready(self, name: str) -> bool:
        return self.fetch(name, "readyz") is not None

    def fetch(self, name: str, page: str) -> str | None:
        """A page of the service's HTTP face, or None while it does not answer well."""
        url = f"http://127.0.0.1:{self.services[name].metrics_port}/{page}"
        try:
            with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:  # noqa: S310 - our own loopback URL
                return str(answer.read().decode())
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def check(self, *names: str) -> None:
        """Raises StackError where a service has ended by itself."""
        for name in names or tuple(self.services):
            process = self.services[name].process
            status = None if process is None else process.poll()
            if status is not None and status != 0:
                raise StackError(f"{name} ended with status {status}; {self._log_end(name)}")

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.services[name].process
        if process is not None:
            process.kill()
            process.wait(10)

    def terminate(self, name: str) -> bool:
        """SIGTERM and wait. True when it ended by itself in time."""
        process = self.services[name].process
        return process is None or stop(process, deadline_seconds=_STOP_SECONDS)

    def stop(self) -> None:
        """Everything, in the order of the data's way, the broker last."""
        processes = [service.process for service in reversed(self.services.values()) if service.process is not None]
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            stop(process, deadline_seconds=_STOP_SECONDS)
        self.broker.stop()

    def log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _add(self, name: str, module: str, values: Mapping[str, Any], *, kafka: bool = True) -> Service:
        path = self.folder / "config" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        port = free_ports(1)[0]
        shared: dict[str, Any] = {"metrics": {"port": port}, "log_format": "json"}
        if kafka:
            shared["kafka"] = {"bootstrap_servers": self.broker.bootstrap_servers}
        path.write_text(tomli_w.dumps(shared | dict(values)), encoding="utf-8")
        self.services[name] = Service(name, module, path, port)
        return self.services[name]

    def _log_end(self, name: str) -> str:
        return f"its log {self.log_path(name)} ends with:\n{tail(self.log_path(name))}"
