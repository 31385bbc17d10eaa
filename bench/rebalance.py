"""How long streams stand still when a decoder dies, leaves, comes back or joins: by group protocol.

Eight partitions get a message every 50 ms; two consumer processes with the decoder's own settings read them. After
each event the longest silence of any partition is measured. `classic` is cooperative-sticky, with static membership (as
our decoders) and without; `consumer` is KIP-848. The session timeout is 6 s in all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from skyscraper.localkafka import LocalBroker

PARTITIONS = 8
TOPIC = "bench"
SESSION_SECONDS = 6
SETTLE_SECONDS = 8.0
WATCH_SECONDS = 16.0
EVENTS = ("sigkill", "sigkill_and_restart", "leave", "join")
PROTOCOLS = ("classic_static", "classic_dynamic", "consumer")


def consume(bootstrap: str, group: str, instance: str, protocol: str) -> None:
    """One consumer process: prints the partition of every message it gets."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "latest",
        "log_level": 0,
    }
    if protocol == "consumer":
        settings["group.protocol"] = "consumer"
    else:
        settings |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": SESSION_SECONDS * 1000,
            "heartbeat.interval.ms": SESSION_SECONDS * 1000 // 3,
        }
    if protocol != "classic_dynamic":
        settings["group.instance.id"] = instance
    consumer = Consumer(settings)
    consumer.subscribe([TOPIC])

    def leave_when_told() -> None:
        sys.stdin.read()
        consumer.close()

    threading.Thread(target=leave_when_told, daemon=True).start()
    while True:
        try:
            message = consumer.poll(0.1)
        except RuntimeError:
            # Closed by the other thread: it was told to leave.
            return
        if message is not None and message.error() is None:
            print(message.partition(), flush=True)


class Member:
    """A consumer process and the times at which it got messages, by partition."""

    def __init__(self, bootstrap: str, group: str, instance: str, protocol: str, seen: dict[int, list[float]]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--consume", bootstrap, group, instance, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._seen = seen
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._seen[int(line)].append(time.monotonic())

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


def longest_silence(seen: dict[int, list[float]], start: float, end: float) -> float:
    """Of any partition, within the window."""
    worst = 0.0
    for times in seen.values():
        inside = [start, *(time for time in times if start <= time <= end), end]
        worst = max(worst, *(after - before for before, after in zip(inside[:-1], inside[1:], strict=True)))
    return worst


def measure(bootstrap: str, protocol: str, event: str) -> float:
    group = f"{protocol}-{event}-{time.time_ns()}"
    seen: dict[int, list[float]] = {partition: [] for partition in range(PARTITIONS)}
    members = [Member(bootstrap, group, name, protocol, seen) for name in ("a", "b")]
    time.sleep(SETTLE_SECONDS)
    start = time.monotonic()
    if event.startswith("sigkill"):
        members[0].process.kill()
    if event == "sigkill_and_restart":
        members.append(Member(bootstrap, group, "a", protocol, seen))
    if event == "leave":
        members[0].leave()
    if event == "join":
        members.append(Member(bootstrap, group, "c", protocol, seen))
    time.sleep(WATCH_SECONDS)
    silence = longest_silence(seen, start, time.monotonic())
    for member in members:
        member.process.kill()
        member.process.wait()
    return silence


def run() -> dict[str, Any]:
    results: dict[str, Any] = {}
    settings = {
        "group.consumer.session.timeout.ms": str(SESSION_SECONDS * 1000),
        "group.consumer.min.heartbeat.interval.ms": "1000",
        "group.consumer.heartbeat.interval.ms": "2000",
    }
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder), settings=settings) as broker:
        client: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers}
        admin = AdminClient(client)
        admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(20)
        stop = threading.Event()

        def produce() -> None:
            producer = Producer({**client, "linger.ms": 0})
            while not stop.wait(0.05):
                for partition in range(PARTITIONS):
                    producer.produce(TOPIC, b"x", partition=partition)
                producer.poll(0)

        threading.Thread(target=produce, daemon=True).start()
        for protocol in PROTOCOLS:
            results[protocol] = {}
            for event in EVENTS:
                results[protocol][event] = round(measure(broker.bootstrap_servers, protocol, event), 2)
                print(protocol, event, results[protocol][event], file=sys.stderr)
        stop.set()
    return {"longest_silence_seconds": results, "session_timeout_seconds": SESSION_SECONDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the last line is always JSON")
    parser.add_argument("--consume", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        consume(*arguments.consume)
    else:
        print(json.dumps(run()))


if __name__ == "__main__":
    main()
