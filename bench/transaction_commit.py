"""What a Kafka transaction costs from librdkafka, and why.

Begin, one row, one offset, commit: again and again, as fast as it goes, for several values of `retry.backoff.ms`. The
broker answers CONCURRENT_TRANSACTIONS while it still writes the markers of the transaction before (a few
milliseconds); librdkafka then waits for the back-off, by default 100 ms, before it asks again. That wait is nearly the
whole cost, and a decoder that commits rarely (`paced`) does not pay it at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from skyscraper.localkafka import LocalBroker

TOPIC = "bench"
COMMITS = 60
TIMEOUT_SECONDS = 30.0


def measure(client: dict[str, Any], name: str, pause_seconds: float, settings: dict[str, Any]) -> dict[str, float]:
    producer = Producer({**client, "transactional.id": name, "linger.ms": 5, **settings})
    producer.init_transactions(TIMEOUT_SECONDS)
    consumer = Consumer({**client, "group.id": name, "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    consumer.poll(5)
    lengths = []
    for number in range(COMMITS):
        time.sleep(pause_seconds)
        started = time.monotonic()
        producer.begin_transaction()
        producer.produce(TOPIC, b"row" * 100)
        group = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([TopicPartition(TOPIC, 0, number)], group, TIMEOUT_SECONDS)
        producer.commit_transaction(TIMEOUT_SECONDS)
        lengths.append(time.monotonic() - started)
    consumer.close()
    found = {f"p{q}": round(float(np.percentile(lengths[5:], q)), 4) for q in (50, 95, 99)}
    print(name, found, file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the last line is always JSON")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder)) as broker:
        client: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers, "log_level": 0}
        admin = AdminClient(client)
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(20)
        results = {
            f"backoff_{backoff}_ms": measure(client, f"backoff-{backoff}", 0.0, {"retry.backoff.ms": backoff})
            for backoff in (100, 20, 10, 2)
        }
        results["paced_backoff_100_ms"] = measure(client, "paced", 0.25, {"retry.backoff.ms": 100})
        results["paced_backoff_10_ms"] = measure(client, "paced-10", 0.25, {"retry.backoff.ms": 10})
    ratio = results["backoff_100_ms"]["p50"] / results["backoff_10_ms"]["p50"]
    print(json.dumps({"commit_seconds": results, "ratio_100_to_10_ms": round(ratio, 2)}))


if __name__ == "__main__":
    main()
