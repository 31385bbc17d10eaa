"""Errors of calling a model server."""

from skyscraper.errors import SkyscraperError


class ModelUnavailable(SkyscraperError):
    """The server does not serve the model (yet): its stream waits, and goes on when the model is there."""

    retriable = True


class InferenceUnreachable(SkyscraperError):
    """No model server answers within the deadline."""

    retriable = True
