"""The service: a thread per stream that captures, one thread that sends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial

import structlog
from skyscraper.bus.spill import Spill, SpillFailed
from skyscraper.bus.streams import register_streams
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.media.sources import parse_source
from skyscraper.service import Health
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, Stream

from skyscraper_publisher import metrics
from skyscraper_publisher.broker import SegmentProducer
from skyscraper_publisher.capture import Capture, CaptureState
from skyscraper_publisher.config import PublisherConfig, StreamConfig
from skyscraper_publisher.epochs import next_epoch
from skyscraper_publisher.outbox import Outbox

log = structlog.get_logger()

# The rhythm of the sending loop while nothing happens; answers of the broker wake it at once.
POLL_SECONDS = 0.1
# A loop that has not turned for so long hangs, and the process is to be restarted.
ALIVE_SECONDS = 60.0
# All captures together may take so long to give out their last segment. One that sits in a read, which only its own
# timeout ends, must not hold up the end of the process.
JOIN_SECONDS = 2.0


class Publisher:
    """All streams of one process."""

    def __init__(self, config: PublisherConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._producer = SegmentProducer(config.kafka, config.instance)
        self._outboxes: list[Outbox] = []
        self._captures: list[Capture] = []
        self._threads: list[threading.Thread] = []
        self._registered: dict[str, int] | None = None
        self._registration_error: SkyscraperError | None = None
        self.turned_at = time.monotonic()
        try:
            for stream in config.streams:
                self._add(stream)
        except SpillFailed as error:
            self._close()
            raise ConfigError(str(error)) from error

    def _add(self, stream: StreamConfig) -> None:
        spill = Spill(
            self._config.spill.folder / stream.id,
            max_bytes=self._config.spill.max_bytes_per_stream,
            fsync_every_append=self._config.spill.fsync,
        )
        outbox = Outbox(
            stream.id,
            partial(self._producer.send, stream.id),
            spill,
            max_memory_bytes=self._config.memory_bytes_per_stream,
            spill_after_seconds=self._config.spill.after_seconds,
        )
        if not outbox.is_empty:
            log.info("replaying_spill", stream=stream.id, bytes=spill.size_bytes)
        self._outboxes.append(outbox)
        epoch = stream.epoch if stream.epoch is not None else next_epoch(spill.folder, time.time())
        self._captures.append(Capture(stream, self._config.input, outbox, epoch, self._stop))

    def run(self, health: Health) -> None:
        """Until stopped, or until every source has ended and all of it is acknowledged."""
        self._start("register", self._register)
        for capture in self._captures:
            self._start(f"capture-{capture.stream.id}", capture.run)
        try:
            while not self._stop.is_set() and not self._all_done():
                self._turn()
                if self._registered is not None and not health.ready:
                    self._take_partitions(self._registered)
                    health.set_ready(True)
            self._drain()
        finally:
            self._close()
        failed = [capture.error for capture in self._captures if capture.error is not None]
        if failed:
            raise SkyscraperError(f"{len(failed)} of {len(self._captures)} streams failed; the first: {failed[0]}")

    def _turn(self) -> None:
        self.turned_at = time.monotonic()
        self._producer.poll(POLL_SECONDS)
        if self._producer.fatal is not None:
            raise SkyscraperError(f"the Kafka client cannot go on, start the publisher again: {self._producer.fatal}")
        if self._registration_error is not None:
            raise self._registration_error
        for outbox in self._outboxes:
            outbox.pump()
        states = Counter(capture.state for capture in self._captures)
        for state in CaptureState:
            metrics.STREAMS.labels(state.value).set(states[state])

    def _all_done(self) -> bool:
        over = all(capture.state in {CaptureState.DONE, CaptureState.FAILED} for capture in self._captures)
        if not over:
            return False
        if self._registered is None and all(capture.state is CaptureState.FAILED for capture in self._captures):
            return True
        return all(outbox.is_empty for outbox in self._outboxes)

    def _drain(self) -> None:
        """After a stop: what is in memory may still be acknowledged within the time given."""
        until = time.monotonic() + self._config.shutdown_seconds
        joined = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, joined - time.monotonic()))
        while time.monotonic() < until and self._registered is not None:
            if all(outbox.is_empty for outbox in self._outboxes):
                return
            self._turn()

    def _register(self) -> None:
        config = self._config
        wanted = [(_as_registered(stream), stream.partition) for stream in config.streams]
        while not self._stop.is_set():
            try:
                self._registered = register_streams(
                    config.kafka.client(), wanted, deadline_seconds=config.register_seconds
                )
            except SkyscraperError as error:
                if not error.retriable:
                    self._registration_error = error
                    return
                log.warning("registration_waits_for_the_broker", error=str(error))
                self._stop.wait(1.0)
            else:
                return

    def _take_partitions(self, registered: dict[str, int]) -> None:
        for outbox in self._outboxes:
            outbox.partition = registered[outbox.stream_id]
            log.info("stream_registered", stream=outbox.stream_id, partition=outbox.partition)

    def _start(self, name: str, target: object) -> None:
        if not callable(target):
            raise TypeError(name)
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _close(self) -> None:
        self._stop.set()
        for outbox in self._outboxes:
            outbox.close()


def serve(config: PublisherConfig, health: Health, stop: threading.Event) -> None:
    """What `run_service` runs."""
    publisher = Publisher(config, stop)
    health.alive = lambda: time.monotonic() - publisher.turned_at < ALIVE_SECONDS
    publisher.run(health)


def _as_registered(stream: StreamConfig) -> Stream:
    return Stream(
        stream_id=stream.id,
        pipeline=stream.pipeline,
        tenant=stream.tenant,
        weight=stream.weight,
        source=parse_source(stream.source.get_secret_value()).shown,
        state=STREAM_STATE_ACTIVE,
        configuration=stream.configuration,
    )
