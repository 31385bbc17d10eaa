"""Errors of the bus."""

from __future__ import annotations

from skyscraper.errors import SkyscraperError


class BusTimeout(SkyscraperError):
    """Kafka did not answer before the deadline."""

    retriable = True


class BusError(SkyscraperError):
    """Kafka refused for a reason that waiting does not cure."""
