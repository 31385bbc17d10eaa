"""A service's small HTTP face: Prometheus metrics, liveness and readiness."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from skyscraper.errors import ConfigError


class Health:
    """Serves /metrics, /healthz (200 while `alive()`) and /readyz (200 after `set_ready(True)`).

    `alive` is asked at every call; give it a check of the main loop's last progress so that a hung process is
    restarted, and keep it quick.
    """

    def __init__(
        self, host: str, port: int, *, alive: Callable[[], bool] = lambda: True, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._ready = threading.Event()
        self.alive = alive
        health = self

        class Handler(BaseHTTPRequestHandler):
            # A probe that stops sending must not hold a thread for ever.
            timeout = 5.0

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    self._answer_check(health.alive())
                elif self.path == "/readyz":
                    self._answer_check(health.ready and health.alive())
                else:
                    self._answer(HTTPStatus.NOT_FOUND, b"try /metrics, /healthz or /readyz\n", "text/plain")

            def _answer_check(self, good: bool) -> None:
                status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, b"ok\n" if good else b"not ok\n", "text/plain")

            def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
                """Probes every few seconds are not events."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"metrics.host {host}, metrics.port {port}: cannot listen there ({error.strerror}); "
                "choose another port or 0"
            ) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def set_ready(self, ready: bool) -> None:
        if ready:
            self._ready.set()
        else:
            self._ready.clear()

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
