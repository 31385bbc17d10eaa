"""The broker that outlives the command that starts it: `skyscraper broker start|stop|status`."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from skyscraper.localkafka.broker import LocalBroker
from skyscraper.localkafka.errors import LocalKafkaError

_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class BrokerState:
    """A broker in the background, as noted in its data folder."""

    bootstrap_servers: str
    data_dir: str
    pids: list[int]


def start(data_dir: Path, *, port: int, brokers: int) -> BrokerState:
    """Start it if it does not run; the same data folder gives the same broker. Raises LocalKafkaError."""
    running = status(data_dir)
    if running is not None:
        return running
    if brokers not in (1, 3):
        raise LocalKafkaError(f"{brokers} brokers: one, or three for replication")
    _refuse_taken(port)
    broker = LocalBroker(data_dir, brokers=brokers, port=port, detached=True).start()
    state = BrokerState(broker.bootstrap_servers, str(data_dir.resolve()), broker.pids)
    _state_file(data_dir).write_text(json.dumps(asdict(state)), encoding="utf-8")
    return state


def status(data_dir: Path) -> BrokerState | None:
    """The running broker of this folder, or None; a note left by a broker that died is no broker."""
    try:
        state = BrokerState(**json.loads(_state_file(data_dir).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return state if all(_is_kafka(pid, data_dir) for pid in state.pids) else None


def stop(data_dir: Path) -> bool:
    """Stop it. False where none ran. Raises LocalKafkaError where it does not end."""
    state = status(data_dir)
    if state is None:
        return False
    for pid in state.pids:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(_is_kafka(pid, data_dir) for pid in state.pids):
        if time.monotonic() >= deadline:
            raise LocalKafkaError(f"the broker (process {state.pids}) does not end; try kill -9")
        time.sleep(0.1)
    _state_file(data_dir).unlink(missing_ok=True)
    return True


def _is_kafka(pid: int, data_dir: Path) -> bool:
    """Process numbers are reused: it is ours only if its command line names our folder."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"kafka.Kafka" in command and str(data_dir.resolve()).encode() in command


def _state_file(data_dir: Path) -> Path:
    return data_dir / "background.json"


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # As the broker itself binds: a port that only lingers after its last owner is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalKafkaError(f"port {port} is taken ({error.strerror}): choose another with --port") from error
