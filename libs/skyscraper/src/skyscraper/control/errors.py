"""What control refuses."""

from __future__ import annotations

from skyscraper.errors import SkyscraperError


class Infeasible(SkyscraperError):
    """The resources cannot carry the streams; the message shows the arithmetic."""
