"""Errors of fetching and converting models."""

from skyscraper.errors import SkyscraperError


class ModelError(SkyscraperError):
    """A model cannot be fetched, converted or verified; the message says why and what to do."""
