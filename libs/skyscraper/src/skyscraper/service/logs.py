"""Structured logs: one event name plus fields, JSON in containers, readable on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from urllib.parse import urlsplit, urlunsplit

import structlog

# The names under which cameras take credentials in the query, where they take them there.
_SECRET_IN_QUERY = re.compile(r"(?i)([?&](?:user|username|usr|pass|password|passwd|pwd|token|auth|key|secret)=)[^&#]*")


def configure_logs(service: str, *, log_format: str = "auto", level: str = "info") -> None:
    """Send every log event of this process to stderr, with the service's name in each."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def without_credentials(url: str) -> str:
    """The URL as it may be shown: `rtsp://user:secret@host/x?token=1` becomes `rtsp://host/x?token=***`."""
    url = _SECRET_IN_QUERY.sub(r"\1***", url)
    try:
        parts = urlsplit(url)
    except ValueError:
        # No valid URL, but somebody meant it as one and may have put a password in.
        return re.sub(r"://.*@", "://", url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
