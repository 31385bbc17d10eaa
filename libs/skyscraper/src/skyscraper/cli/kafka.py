"""How subcommands reach Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from skyscraper.bus.wait_for_topics import CommandConfig
from skyscraper.service.config import KafkaConfig, load_config

Bootstrap = Annotated[
    str,
    typer.Option("--bootstrap", envvar="SKYSCRAPER_KAFKA", help="Kafka's host:port; the local broker's by default."),
]
LOCAL = "127.0.0.1:9092"


def kafka_at(bootstrap: str) -> KafkaConfig:
    """The address as given, TLS and SASL from the environment. Raises ConfigError."""
    return load_config(CommandConfig, None).kafka.model_copy(update={"bootstrap_servers": bootstrap})


def client_at(bootstrap: str) -> dict[str, Any]:
    """librdkafka's settings. Raises ConfigError."""
    # A broker that does not answer is told in one sentence, not in librdkafka's own log.
    return kafka_at(bootstrap).client() | {"log_level": 2}
