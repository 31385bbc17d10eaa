"""Publish one source and return when it is done: what `skyscraper publish` does, for callers in Python."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import CollectorRegistry
from skyscraper.service import Health, KafkaConfig

from skyscraper_publisher.config import PublisherConfig, StreamConfig
from skyscraper_publisher.serve import serve


def publish_once(
    source: str,
    stream_id: str,
    *,
    kafka: KafkaConfig | None = None,
    stop: threading.Event | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Publish `source` as `stream_id` until it ends or `stop` is set.

    `options` are fields of StreamConfig (`loop`, `pace`, `partition`, ...), `settings` fields of PublisherConfig
    (`spill`, `input`, ...). Raises SkyscraperError, or pydantic's ValidationError for an option that cannot be used.
    """
    stream = StreamConfig.model_validate({"id": stream_id, "source": source, **options})
    config = PublisherConfig.model_validate(
        {**(settings or {}), "streams": [stream], "kafka": kafka or KafkaConfig.model_validate({})}
    )
    with Health("127.0.0.1", 0, registry=CollectorRegistry()) as health:
        serve(config, health, stop or threading.Event())
