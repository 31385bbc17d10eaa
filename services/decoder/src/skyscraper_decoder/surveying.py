"""Features of segments whose publisher told none: read from their bytes, as our publisher would have.

Anyone can publish without our headers (`ffmpeg` and `kcat`); such streams are predicted as well as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from skyscraper.bus.headers import SegmentHeaders
from skyscraper.errors import BadSegment
from skyscraper.media.look import look
from skyscraper.media.looking import Looking
from skyscraper.media.survey import survey

from skyscraper_decoder import metrics

# Of video whose length nobody told; for the share of a core that looks may take only.
_DURATION_SECONDS = 2.0


class Surveyor:
    """Used by one thread. One bound of CPU time for each stream (see `media.looking`)."""

    def __init__(self, look: Callable[[bytes], dict[str, float]] = look) -> None:
        self._look = look
        self._looking: dict[str, Looking] = {}

    def complete(self, stream_id: str, headers: SegmentHeaders, value: bytes) -> SegmentHeaders:
        """The headers, with length and features where they were not told and can be read."""
        if headers.features:
            return headers
        try:
            found = survey(value)
        except BadSegment as error:
            # The segment's own turn will tell, and put it where it belongs.
            metrics.SURVEYED.labels(error.reason).inc()
            return headers
        metrics.SURVEYED.labels("told").inc()
        looking = self._looking.setdefault(stream_id, Looking(stream_id, _without, look=self._look))
        duration = headers.duration_seconds or found.duration_seconds or None
        features = found.features | looking.features(value, duration or _DURATION_SECONDS)
        return replace(headers, duration_seconds=duration, features=features)


def _without(reason: str) -> None:
    metrics.SURVEYED.labels(f"no_look_{reason}").inc()
