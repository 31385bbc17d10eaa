"""`skyscraper publish`: the publisher service with one stream."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import SecretStr

from skyscraper.cli.kafka import kafka_at


def run_publisher(stream: Mapping[str, Any], bootstrap_servers: str) -> int:
    """Run it in the foreground with its own log on the terminal; returns its exit status."""
    kafka = kafka_at(bootstrap_servers).model_dump(exclude_none=True)
    config = {
        "instance": f"publish-{stream['id']}"[:100],
        "log_format": "console",
        "kafka": {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in kafka.items()
        },
        "streams": [dict(stream)],
    }
    # The source may hold a password, and so may Kafka's settings: the file is ours alone (mode 0600) and goes with
    # the command.
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(tomli_w.dumps(config))
        file.flush()
        process = subprocess.Popen([sys.executable, "-m", "skyscraper_publisher", "--config", str(Path(file.name))])
        # Ctrl-C reaches the publisher too (same terminal); it then finishes what it holds, and we wait for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        return process.wait()
