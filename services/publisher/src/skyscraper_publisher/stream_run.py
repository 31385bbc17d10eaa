"""One stream in this process: its outbox, and the captures that fill it one after the other."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial

import structlog
from skyscraper.bus.spill import Spill

from skyscraper_publisher import metrics
from skyscraper_publisher.broker import SegmentProducer
from skyscraper_publisher.capture import Capture, CaptureState
from skyscraper_publisher.config import PublisherConfig, StreamConfig
from skyscraper_publisher.epochs import next_epoch
from skyscraper_publisher.outbox import Outbox
from skyscraper_publisher.reconcile import Phase, Running

log = structlog.get_logger()


class StreamRun:
    """Called by the sending loop's thread only."""

    def __init__(self, stream_id: str, config: PublisherConfig, producer: SegmentProducer) -> None:
        """Take up the stream's spill. Raises SpillFailed."""
        self.stream_id = stream_id
        self._config = config
        self._spill = Spill(
            config.spill.folder / stream_id,
            max_bytes=config.spill.max_bytes_per_stream,
            fsync_every_append=config.spill.fsync,
        )
        self.outbox = Outbox(
            stream_id,
            partial(producer.send, stream_id),
            self._spill,
            max_memory_bytes=config.memory_bytes_per_stream,
            spill_after_seconds=config.spill.after_seconds,
        )
        if not self.outbox.is_empty:
            log.info("replaying_spill", stream=stream_id, bytes=self._spill.size_bytes)
        self.capture: Capture | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def begin(self, stream: StreamConfig) -> None:
        """Capture from now on, in a thread of its own and with an epoch of its own."""
        first = self.capture is None
        fixed = stream.epoch if first else None
        epoch = next_epoch(self._spill.folder, time.time()) if fixed is None else fixed
        self._stop = threading.Event()
        self.capture = Capture(stream, self._config.input, self.outbox, epoch, self._stop)
        self._thread = threading.Thread(target=self.capture.run, name=f"capture-{self.stream_id}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell the capture to end; does not wait."""
        self._stop.set()

    def join(self, timeout_seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    @property
    def over(self) -> bool:
        """Its source has ended by itself."""
        return self.capture is not None and self.capture.state in {CaptureState.DONE, CaptureState.FAILED}

    def running(self, *, registered: bool) -> Running[StreamConfig]:
        """`registered`: whether anybody can say where its segments belong. If not, what it holds stays on disk."""
        settings = None if self.capture is None else self.capture.stream
        alive = self._thread is not None and self._thread.is_alive()
        if self.capture is not None and not self._stop.is_set():
            return Running(settings, Phase.CAPTURING)
        if alive:
            return Running(settings, Phase.STOPPING)
        drained = not registered or self.outbox.is_empty
        return Running(settings, Phase.DRAINED if drained else Phase.DRAINING)

    def close(self) -> None:
        """End, keeping on disk what was not acknowledged."""
        self.end()
        self.outbox.close()

    def forget_metrics(self) -> None:
        """A stream that is no longer here must not look like one that has fallen silent."""
        for gauge in (metrics.QUEUE_BYTES, metrics.SPILL_BYTES, metrics.LAST_PUBLISHED):
            with contextlib.suppress(KeyError):
                gauge.remove(self.stream_id)
