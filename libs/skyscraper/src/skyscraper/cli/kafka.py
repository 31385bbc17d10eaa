"""How subcommands reach Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyscraper.service.config import KafkaConfig

Bootstrap = Annotated[
    str,
    typer.Option("--bootstrap", envvar="SKYSCRAPER_KAFKA", help="Kafka's host:port; the local broker's by default."),
]
LOCAL = "127.0.0.1:9092"


def client_at(bootstrap: str) -> dict[str, Any]:
    """librdkafka's settings."""
    client = KafkaConfig(bootstrap_servers=bootstrap).client()
    # A broker that does not answer is told in one sentence, not in librdkafka's own log.
    return client | {"log_level": 2}
