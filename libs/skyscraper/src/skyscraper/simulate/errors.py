"""What can be wrong with a simulation's input."""

from __future__ import annotations

from skyscraper.errors import SkyscraperError


class TraceError(SkyscraperError):
    """A trace cannot be used; the message says which array is wrong, where, and what is expected."""
