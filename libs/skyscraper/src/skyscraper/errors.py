"""The one base of everything this library raises on purpose."""

from __future__ import annotations


class SkyscraperError(Exception):
    """What happened, where, and what to do about it, in one message.

    `retriable` says whether the same call may succeed later without anybody changing anything.
    """

    retriable: bool = False


class ConfigError(SkyscraperError):
    """A configuration that cannot be used; the message names the field and the remedy."""


class BadSegment(SkyscraperError):
    """A segment that can never be processed. `reason` is one of a bounded set of words, used as a metric label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Overloaded(SkyscraperError):
    """Back-pressure: the callee is full. Try again after `retry_after_seconds`."""

    retriable = True

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
