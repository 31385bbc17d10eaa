"""Errors of the lakehouse."""

from __future__ import annotations

from collections.abc import Mapping

from skyscraper.errors import SkyscraperError


class LakehouseError(SkyscraperError):
    """The catalog or a table cannot be used; the message says why and what to do."""


class LakehouseBusy(SkyscraperError):
    """Others commit to the table all the time, or the catalog does not answer: try again."""

    retriable = True


class OffsetsMoved(SkyscraperError):
    """Another loader has written these partitions since: drop what is held and read on from `offsets`."""

    retriable = True

    def __init__(self, offsets: Mapping[int, int]) -> None:
        super().__init__(f"the table is at offsets {dict(offsets)}, not where this loader was")
        self.offsets = dict(offsets)


class BadRow(SkyscraperError):
    """A message of a rows topic that is no row. `reason` is one of a bounded set of words."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
