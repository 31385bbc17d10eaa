"""How every service starts and stops: `python -m skyscraper_<name> [--config FILE] [--check-config]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

import structlog

from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.service.config import ServiceConfig, load_config
from skyscraper.service.health import Health
from skyscraper.service.logs import configure_logs

C = TypeVar("C", bound=ServiceConfig)

EXIT_CONFIG = 2
EXIT_FAILED = 1
# As shells count: 128 and the signal's number.
_SIGNALLED = 128

_FIRST_RESTART_SECONDS = 0.5
_LAST_RESTART_SECONDS = 10.0
# After so long without a fault the next one counts as the first again.
_CALM_SECONDS = 60.0


def run_service(
    name: str,
    cls: type[C],
    serve: Callable[[C, Health, threading.Event], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, load the configuration, and run `serve(config, health, stop)` until it returns.

    SIGTERM and SIGINT set `stop`; `serve` then has `shutdown_seconds` to finish. A second signal ends the process
    at once. Returns the exit status: 0 stopped as asked, 1 failed, 2 the configuration cannot be used.
    """
    parser = argparse.ArgumentParser(prog=f"skyscraper_{name}", description=f"The Skyscraper {name} service.")
    parser.add_argument("--config", type=Path, help="TOML file; environment variables override it")
    parser.add_argument("--check-config", action="store_true", help="validate and print the configuration, then exit")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(cls, arguments.config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    if arguments.check_config:
        print(json.dumps(config.model_dump(mode="json"), indent=2))
        return 0
    configure_logs(name, log_format=config.log_format, level=config.log_level)
    log = structlog.get_logger()
    stop = threading.Event()
    try:
        with _stop_on_signals(stop), Health(config.metrics.host, config.metrics.port) as health:
            log.info("starting", instance=config.instance, metrics_port=health.port)
            _serve_until_stopped(config, health, stop, serve)
    except ConfigError as error:
        log.error("configuration_cannot_be_used", error=str(error))  # noqa: TRY400 - the message is the whole story
        return EXIT_CONFIG
    except SkyscraperError as error:
        log.error("failed", error=str(error), retriable=error.retriable)  # noqa: TRY400 - the message is the whole story
        return EXIT_FAILED
    log.info("stopped")
    return 0


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; a second one ends the process at once.

    A Python signal handler runs in the main thread only, and nothing wakes that thread from a wait without a deadline
    where the kernel gave the signal to another thread (seen with gRPC's threads: SIGTERM went unheard in every other
    run). The wake-up file is written by whichever thread got the signal.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while number := reader.recv(1):
            if stop.is_set():
                os._exit(_SIGNALLED + number[0])
            stop.set()

    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
        thread.join(timeout=1.0)
        reader.close()


def _ignore(_: int, __: FrameType | None) -> None:
    """With a handler in Python the wake-up file is written."""


def _serve_until_stopped(
    config: C, health: Health, stop: threading.Event, serve: Callable[[C, Health, threading.Event], None]
) -> None:
    """Start again after what may pass by itself (a broker that restarts); everything else ends the process, and
    whatever supervises it decides."""
    wait_seconds = _FIRST_RESTART_SECONDS
    while True:
        started = time.monotonic()
        try:
            return serve(config, health, stop)
        except SkyscraperError as error:
            if not error.retriable or stop.is_set():
                raise
            structlog.get_logger().warning("starting_again", error=str(error), wait_seconds=wait_seconds)
        health.set_ready(False)
        if time.monotonic() - started > _CALM_SECONDS:
            wait_seconds = _FIRST_RESTART_SECONDS
        if stop.wait(wait_seconds):
            return None
        wait_seconds = min(2 * wait_seconds, _LAST_RESTART_SECONDS)
