"""The local broker: its data outlives it, it never outlives its owner, three of them survive the loss of one."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import TopicSpec
from skyscraper.localkafka import LocalBroker
from skyscraper.processes import free_ports

pytestmark = pytest.mark.broker

_SECONDS = 60.0


def client_of(broker: LocalBroker) -> dict[str, Any]:
    return {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0, "reconnect.backoff.max.ms": 500}


def read_all(client: dict[str, Any], topic: str) -> list[bytes]:
    """Everything in partition 0, in order."""
    consumer = Consumer({**client, "group.id": "test", "enable.partition.eof": True})
    values, until = [], time.monotonic() + _SECONDS
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while time.monotonic() < until:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is None:
                values.append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                return values
    finally:
        consumer.close()
    raise AssertionError(f"{topic} could not be read to its end")


def java_with(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "kafka.Kafka" in command and any(str(folder) in part for part in command):
            found.append(process.pid)
    return found


def test_data_written_before_sigkill_is_there_after_the_restart(tmp_path: Path) -> None:
    with LocalBroker(tmp_path) as broker:
        servers = broker.bootstrap_servers
        create_topics(client_of(broker), [TopicSpec("kept", 1)], replication_factor=1)
        producer = Producer({**client_of(broker), "enable.idempotence": True})
        for number in range(500):
            producer.produce("kept", str(number).encode())
        assert producer.flush(_SECONDS) == 0
        broker.kill()
        broker.start()
        assert broker.bootstrap_servers == servers
        assert read_all(client_of(broker), "kept") == [str(number).encode() for number in range(500)]


def test_a_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from skyscraper.localkafka import LocalBroker
        LocalBroker(Path(sys.argv[1])).start()
        print("\\nup", flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert b"up\n" in iter(owner.stdout.readline, b"")
        assert len(java_with(tmp_path)) == 1
        owner.kill()
    until = time.monotonic() + _SECONDS
    while java_with(tmp_path):
        assert time.monotonic() < until, "the broker outlives its owner"
        time.sleep(0.05)


def test_the_commands_start_tell_and_stop_one_broker(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    try:
        assert skyscraper("broker", "status", "--data-dir", str(tmp_path)) == (1, "no broker runs")
        status, told = skyscraper("broker", "start", "--data-dir", str(tmp_path), "--port", str(port))
        assert status == 0
        assert f"Kafka runs at 127.0.0.1:{port}" in told
        running = java_with(tmp_path)
        assert len(running) == 1, "the broker must outlive the command"
        assert skyscraper("broker", "start", "--data-dir", str(tmp_path), "--port", str(port)) == (0, told)
        assert java_with(tmp_path) == running
        assert skyscraper("topics", "create", "--bootstrap", f"127.0.0.1:{port}", "--streams", "2")[0] == 0
        status, said = skyscraper("broker", "status", "--data-dir", str(tmp_path))
        assert (status, said) == (0, told.splitlines()[0])
        assert skyscraper("broker", "stop", "--data-dir", str(tmp_path)) == (0, "stopped")
        assert java_with(tmp_path) == []
        assert skyscraper("broker", "stop", "--data-dir", str(tmp_path)) == (0, "no broker runs")
    finally:
        for pid in java_with(tmp_path):
            psutil.Process(pid).kill()


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = skyscraper("broker", "start", "--data-dir", str(tmp_path), "--port", str(port))
    assert status == 1
    assert f"port {port} is taken" in said
    assert "--port" in said
    assert java_with(tmp_path) == []


def test_three_brokers_lose_nothing_when_the_leader_is_killed_under_load(tmp_path: Path) -> None:
    count = 3000
    with LocalBroker(tmp_path, brokers=3) as broker:
        client = client_of(broker)
        create_topics(client, [TopicSpec("replicated", 1)], replication_factor=3)
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        producer = Producer({**client, "acks": "all", "enable.idempotence": True, "linger.ms": 1})
        for number in range(count):
            if number in (count // 3, 2 * count // 3):
                # The first leader, and then the one that took over.
                leader = leader_of(client, "replicated")
                broker.kill_node(leader - 1)
                wait_for_another_leader(client, "replicated", leader)
                broker.start_node(leader - 1)
            producer.produce("replicated", str(number).encode(), on_delivery=delivered)
            producer.poll(0)
        assert producer.flush(_SECONDS) == 0
        assert failed == []
        assert read_all(client, "replicated") == [str(number).encode() for number in range(count)]


def leader_of(client: dict[str, Any], topic: str) -> int:
    return int(AdminClient(client).list_topics(topic, timeout=10).topics[topic].partitions[0].leader)


def wait_for_another_leader(client: dict[str, Any], topic: str, old: int) -> None:
    until = time.monotonic() + _SECONDS
    while leader_of(client, topic) in (old, -1):
        assert time.monotonic() < until, "no other broker takes over"
        time.sleep(0.1)


def skyscraper(*arguments: str) -> tuple[int, str]:
    """Exit status, and what the command said."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("skyscraper")), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.strip()
