"""`python -m skyscraper.bus.wait_for_topics TOPIC …`: end with status 0 once Kafka has all of them.

An init container's program, so that a service's first start on a new installation is no crash.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import Field

from skyscraper.bus.errors import BusTimeout
from skyscraper.errors import SkyscraperError
from skyscraper.service.config import EnvironmentSettings, KafkaConfig, load_config

# A broker that runs answers within a second; the rest of the deadline is for one that does not run yet.
_REQUEST_SECONDS = 5.0
_POLL_SECONDS = 1.0


class CommandConfig(EnvironmentSettings):
    """What commands read from the environment: `SKYSCRAPER_CLI_KAFKA__SASL_PASSWORD` and its like."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_CLI_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="How to reach Kafka.")


def wait_for_topics(
    client: Mapping[str, Any],
    wanted: Sequence[str],
    *,
    deadline_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Returns once every topic is there. Raises BusTimeout that names what is missing."""
    admin = AdminClient({**client, "log_level": 2})
    deadline = clock() + deadline_seconds
    while True:
        try:
            present = admin.list_topics(timeout=_REQUEST_SECONDS).topics
            why = f"there is no topic {', '.join(sorted(set(wanted) - present.keys()))}"
            if present.keys() >= set(wanted):
                return
        except KafkaException as error:
            why = error.args[0].str()
        if clock() >= deadline:
            raise BusTimeout(
                f"Kafka at {client.get('bootstrap.servers')}: {why}, after {deadline_seconds:g} s; create the topics "
                "with `skyscraper topics create`, or look at the chart's topics Job"
            )
        sleep(_POLL_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="skyscraper.bus.wait_for_topics", description=__doc__)
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    # A broker's first start and the topics take a minute; what takes longer is for a person to look at.
    parser.add_argument("--deadline-seconds", type=float, default=300.0)
    arguments = parser.parse_args(argv)
    try:
        client = load_config(CommandConfig, None).kafka.client()
        wait_for_topics(client, arguments.topics, deadline_seconds=arguments.deadline_seconds)
    except SkyscraperError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
