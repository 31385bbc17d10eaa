"""One stream's thread: open the source, cut it, pace it, offer the segments; open again when a camera goes away."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from enum import Enum

import structlog
from skyscraper.errors import SkyscraperError
from skyscraper.media.sources import SourceError, VideoInput, locations, parse_source

from skyscraper_publisher import metrics
from skyscraper_publisher.config import InputConfig, StreamConfig
from skyscraper_publisher.cutting import Cutting, Segment
from skyscraper_publisher.outbox import Outbox

log = structlog.get_logger()

# A camera that gives these goes on giving them until somebody changes its settings or the configuration.
HOPELESS = {"raw_video", "unsupported_codec", "unknown_protocol"}
# How often a waiting source looks whether the service stops.
WAIT_SECONDS = 0.5


class CaptureState(Enum):
    """waiting ⇄ running → done | failed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Capture:
    """Run `run` in a thread of its own."""

    def __init__(
        self,
        stream: StreamConfig,
        patience: InputConfig,
        outbox: Outbox,
        epoch: int,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.stream = stream
        self.state = CaptureState.WAITING
        self.error: SkyscraperError | None = None
        self._patience = patience
        self._outbox = outbox
        self._stop = stop
        self._clock = clock
        # Jitter only spreads cameras over time; nothing depends on its values.
        self._rng = rng or random.Random()  # noqa: S311
        self._source = parse_source(stream.source.get_secret_value())
        self._cutting = Cutting(
            stream, epoch=epoch, shown=self._source.shown, live=self._source.live, stopped=stop.is_set
        )
        self._failures = 0
        self._paced_since: float | None = None

    def run(self) -> None:
        structlog.contextvars.bind_contextvars(stream=self.stream.id)
        try:
            self._run()
            self.state = CaptureState.DONE
            log.info("source_done", source=self._source.shown, segments=self._cutting.sequence)
        except SkyscraperError as error:
            self.error = error
            self.state = CaptureState.FAILED
            log.error("source_failed", source=self._source.shown, error=str(error))  # noqa: TRY400 - the whole story
        except Exception as error:
            # A fault of ours in one stream's thread must be seen and must not take the others along.
            self.error = SkyscraperError(f"stream {self.stream.id} stopped by an unexpected {type(error).__name__}")
            self.state = CaptureState.FAILED
            log.exception("stream_crashed")

    def _run(self) -> None:
        stream, source = self.stream, self._source
        for location in locations(source, loop=stream.loop, watch=stream.watch, sleep=self._stop.wait):
            if self._finished():
                return
            before = self._cutting.sequence
            reason, message = "ended", ""
            try:
                self._publish(location)
            except SourceError as error:
                if not source.live and not stream.watch:
                    raise
                if source.live and not error.retriable and error.reason in HOPELESS:
                    raise
                reason, message = error.reason, str(error)
            if self._finished():
                return
            self._failures = 0 if self._cutting.sequence > before else self._failures + 1
            if source.live:
                self._back_off(reason, message)
            elif self._failures:
                self._skip_empty(location, reason, message)

    def _publish(self, location: str) -> None:
        patience = self._patience
        with VideoInput(
            self._source, location, open_seconds=patience.open_seconds, read_seconds=patience.read_seconds
        ) as video:
            self.state = CaptureState.RUNNING
            log.info("source_opened", source=self._source.shown, codec=video.codec)
            try:
                for segment in self._cutting.segments(video):
                    self._offer(segment)
                    if self._finished():
                        return
            finally:
                self.state = CaptureState.WAITING
                # With the limit reached, the rest is one more than was asked for.
                for segment in () if self._limit_reached() else self._cutting.flush():
                    self._offer(segment)

    def _offer(self, segment: Segment) -> None:
        if self._source.live:
            self._outbox.offer(segment.message)
        elif self.stream.pace == "max":
            while not self._outbox.offer_when_room(segment.message, WAIT_SECONDS):
                if self._stop.is_set():
                    return
        elif not self._wait_until(segment.end_seconds):
            self._outbox.offer(segment.message)

    def _wait_until(self, video_seconds: float) -> bool:
        """Wait until a camera would have finished this segment; True: the service stops."""
        factor = 1.0 if isinstance(self.stream.pace, str) else self.stream.pace
        if self._paced_since is None:
            self._paced_since = self._clock()
        return self._stop.wait(max(0.0, self._paced_since + video_seconds / factor - self._clock()))

    def _finished(self) -> bool:
        return self._stop.is_set() or self._limit_reached()

    def _limit_reached(self) -> bool:
        limit = self.stream.max_segments
        return limit is not None and self._cutting.sequence >= limit

    def _back_off(self, reason: str, message: str) -> None:
        """Full jitter: many cameras behind one switch that went down do not come back in one instant."""
        metrics.RECONNECTS.labels(self.stream.id, reason).inc()
        patience = self._patience
        # 2**10 times any first wait is over any sensible longest one; the exponent stays small.
        ceiling = min(patience.backoff_max_seconds, patience.backoff_seconds * 2 ** min(self._failures, 10))
        seconds = self._rng.uniform(0, ceiling)
        log.warning(
            "source_lost", source=self._source.shown, reason=reason, error=message, next_try_seconds=round(seconds, 2)
        )
        self._stop.wait(seconds)

    def _skip_empty(self, location: str, reason: str, message: str) -> None:
        if not self.stream.watch:
            raise SourceError("empty", f"{location}: no segment could be cut from it: it has no keyframe")
        metrics.RECONNECTS.labels(self.stream.id, reason).inc()
        log.error("file_skipped", file=location, reason=reason, error=message)
