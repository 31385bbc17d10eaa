"""Looks at the first frames of one stream's segments, which may fail or be left out, and never cost a segment."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import structlog

from skyscraper.errors import BadSegment
from skyscraper.media.look import look

log = structlog.get_logger()

# Looks run on threads of their callers; OpenCV's would only be in each other's way, and outside the bound below.
cv2.setNumThreads(1)

# Of one core, for one stream. A camera of 1080 lines takes 3 %; one of 4K would take 15 %, so of its segments some go
# without.
_SHARE_OF_CORE = 0.05
# A look that took longer than its share is made up for by the segments after it; none is remembered for longer.
_MOST_SAVED_SECONDS = 1.0


class Looking:
    """`left_out` hears why a segment goes without: busy (the share of a core is used up), failed, or a BadSegment's
    reason. `cpu_seconds`: this thread's own CPU time, so that what a busy machine makes it wait does not count."""

    def __init__(
        self,
        stream_id: str,
        left_out: Callable[[str], None],
        *,
        look: Callable[[bytes], dict[str, float]] = look,
        cpu_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self._stream_id = stream_id
        self._left_out = left_out
        self._look = look
        self._cpu_seconds = cpu_seconds
        self._saved_seconds = 0.0

    def features(self, value: bytes, duration_seconds: float) -> dict[str, float]:
        """What a look tells, or nothing; the reason is counted."""
        self._saved_seconds = min(self._saved_seconds + _SHARE_OF_CORE * duration_seconds, _MOST_SAVED_SECONDS)
        if self._saved_seconds < 0:
            return self._without("busy")
        started = self._cpu_seconds()
        try:
            return self._look(value)
        except BadSegment as error:
            return self._without(error.reason)
        except Exception as error:  # noqa: BLE001 - nothing that a decoder does may cost the segment
            log.warning("look_failed", stream=self._stream_id, error=f"{type(error).__name__}: {error}")
            return self._without("failed")
        finally:
            self._saved_seconds -= self._cpu_seconds() - started

    def _without(self, reason: str) -> dict[str, float]:
        self._left_out(reason)
        return {}
