"""Errors of the local broker."""

from skyscraper.errors import SkyscraperError


class LocalKafkaError(SkyscraperError):
    """Kafka cannot be installed, started or stopped here; the message says why and what to do."""
