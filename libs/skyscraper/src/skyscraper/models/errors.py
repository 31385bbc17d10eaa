"""Errors of fetching and converting models."""

from skyscraper.errors import SkyscraperError


class ModelError(SkyscraperError):
    """A model cannot be fetched, converted or verified; the message says why and what to do."""


class Unreachable(ModelError):
    """A registry does not answer, or not to the end. The same call may succeed later."""

    retriable = True


class WrongContent(ModelError):
    """A registry answers with something else than the pinned file. Nothing of it was kept."""
