"""A Kafka broker (or three) on this machine: KRaft, plain `java -cp`, free ports, gone when its owner is gone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from skyscraper.bus.topics import MAX_MESSAGE_BYTES
from skyscraper.localkafka.errors import LocalKafkaError
from skyscraper.localkafka.install import find_java, install_kafka
from skyscraper.processes import free_ports, spawn, stop, tail

log = structlog.get_logger()

# Any 16 bytes in base64; a fixed one keeps a data folder usable across restarts.
_CLUSTER_ID = "c2t5c2NyYXBlcmxvY2FsMA"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_FORMAT_SECONDS = 60.0
_HERE = Path(__file__).parent


class LocalBroker:
    """`brokers` nodes with their data under `data_dir`. Keeps its ports over `kill` and `start`.

    Use it as a context manager, or call `start` and `stop`. Call `start` from the main thread: the brokers are bound
    to the thread that starts them (see `skyscraper.processes.spawn`), unless `detached`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        brokers: int = 1,
        port: int | None = None,
        heap_megabytes: int = 256,
        settings: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._heap_megabytes = heap_megabytes
        self._settings = dict(settings or {})
        self._detached = detached
        ports = free_ports(2 * brokers)
        self._ports = ports[:brokers]
        if port is not None:
            self._ports[0] = port
        self._controller_ports = ports[brokers:]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * brokers
        self._java = ""
        self._libs = Path()

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process is not None]

    def start(self) -> LocalBroker:
        """Start every node that does not run, and wait until all answer. Raises LocalKafkaError with the log's end."""
        self._java, self._libs = find_java(), install_kafka()
        for node in range(len(self._processes)):
            self.start_node(node, wait=False)
        self._wait_until_usable()
        return self

    def start_node(self, node: int, *, wait: bool = True) -> None:
        running = self._processes[node]
        if running is not None and running.poll() is None:
            return
        properties = self._write_properties(node)
        if not (self._node_dir(node) / "data" / "meta.properties").exists():
            self._format(node, properties)
        self._processes[node] = spawn(
            [*self._command(self._heap_megabytes), "kafka.Kafka", str(properties)],
            self._log_path(node),
            die_with_parent=not self._detached,
        )
        if wait:
            self._wait_until_usable()

    def kill_node(self, node: int) -> None:
        """SIGKILL, as the chaos tests do."""
        process = self._processes[node]
        if process is not None:
            process.kill()
            process.wait(10)

    def kill(self) -> None:
        for node in range(len(self._processes)):
            self.kill_node(node)

    def stop(self) -> None:
        for process in self._processes:
            if process is not None:
                process.terminate()
        for process in self._processes:
            if process is not None:
                stop(process, deadline_seconds=_STOP_SECONDS)

    def __enter__(self) -> LocalBroker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _node_dir(self, node: int) -> Path:
        return self._data_dir / f"node-{node + 1}"

    def _log_path(self, node: int) -> Path:
        return self._node_dir(node) / "broker.log"

    def _command(self, heap_megabytes: int) -> list[str]:
        return [
            self._java,
            f"-Dlog4j2.configurationFile={_HERE / 'log4j2.xml'}",
            f"-Xms{heap_megabytes}m",
            f"-Xmx{heap_megabytes}m",
            "-XX:+UseSerialGC",
            "-cp",
            f"{self._libs}/*",
        ]

    def _format(self, node: int, properties: Path) -> None:
        command = [
            *(*self._command(128), "kafka.tools.StorageTool"),
            *("format", "--ignore-formatted", "-t", _CLUSTER_ID, "-c", str(properties)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_SECONDS, check=False)
        if done.returncode != 0:
            raise LocalKafkaError(f"Kafka cannot format {self._node_dir(node)}:\n{done.stdout}{done.stderr}")

    def _write_properties(self, node: int) -> Path:
        folder = self._node_dir(node)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "server.properties"
        settings = self._node_settings(node) | self._settings
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
        return path

    def _node_settings(self, node: int) -> dict[str, str]:
        count = len(self._processes)
        replicas, in_sync = str(count), str(min(2, count))
        voters = ",".join(f"{index + 1}@127.0.0.1:{port}" for index, port in enumerate(self._controller_ports))
        listener = f"127.0.0.1:{self._ports[node]}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(node + 1),
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{listener},CONTROLLER://127.0.0.1:{self._controller_ports[node]}",
            "advertised.listeners": f"PLAINTEXT://{listener}",
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self._node_dir(node) / "data"),
            "num.partitions": "1",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(MAX_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
            # One small broker: each internal topic would otherwise have 50 partitions and want three replicas.
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            # A dead decoder's transaction holds up its successor until it is aborted; look for such ones often.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            # The default of 128 MiB does not fit a small heap.
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            # Show retention at work within seconds, not minutes.
            "log.retention.check.interval.ms": "1000",
            "log.segment.delete.delay.ms": "1000",
            "num.network.threads": "2",
            "num.io.threads": "4",
        }
        if count > 1:
            # Fail over within seconds; a data centre's defaults wait longer to ride out pauses.
            settings |= {
                "broker.session.timeout.ms": "3000",
                "broker.heartbeat.interval.ms": "500",
                "controller.quorum.election.timeout.ms": "500",
                "controller.quorum.fetch.timeout.ms": "1000",
            }
        return settings

    def _wait_until_usable(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        admin = AdminClient(
            {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, "reconnect.backoff.max.ms": 500}
        )
        while True:
            for node, process in enumerate(self._processes):
                if process is not None and process.poll() is not None:
                    raise LocalKafkaError(
                        f"the Kafka broker on port {self._ports[node]} ended with status {process.returncode}; "
                        f"its log {self._log_path(node)} ends with:\n{tail(self._log_path(node))}"
                    )
            try:
                if len(admin.list_topics(timeout=1.0).brokers) == len(self._processes):
                    return
            except KafkaException as error:
                log.debug("broker_not_up_yet", error=str(error))
            if time.monotonic() >= deadline:
                raise LocalKafkaError(
                    f"Kafka on {self.bootstrap_servers} did not answer within {_START_SECONDS:g} s; the log "
                    f"{self._log_path(0)} ends with:\n{tail(self._log_path(0))}"
                )
            time.sleep(0.1)
