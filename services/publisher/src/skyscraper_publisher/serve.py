"""The service: a thread per stream that captures, one thread that sends, and one that follows the register."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import structlog
from skyscraper.bus.spill import SpillFailed
from skyscraper.bus.streams import register_streams
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.media.sources import parse_source
from skyscraper.service import Health
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, STREAM_STATE_UNSPECIFIED, Stream

from skyscraper_publisher import metrics
from skyscraper_publisher.broker import SegmentProducer
from skyscraper_publisher.capture import CaptureState
from skyscraper_publisher.claim import Claim
from skyscraper_publisher.config import PublisherConfig, StreamConfig
from skyscraper_publisher.following import Following, Orders
from skyscraper_publisher.reconcile import Act, reconcile
from skyscraper_publisher.stream_run import StreamRun

log = structlog.get_logger()

# The rhythm of the sending loop while nothing happens; answers of the broker wake it at once.
POLL_SECONDS = 0.1
# A loop that has not turned for so long hangs, and the process is to be restarted.
ALIVE_SECONDS = 60.0
# All captures together may take so long to give out their last segment. One that sits in a read, which only its own
# timeout ends, must not hold up the end of the process.
JOIN_SECONDS = 2.0
# A stream whose spill cannot be opened is tried again, and reported, at this rhythm.
OPEN_AGAIN_SECONDS = 10.0


class Publisher:
    """All streams of one process."""

    def __init__(self, config: PublisherConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._producer = SegmentProducer(config.kafka, config.instance)
        self._runs: dict[str, StreamRun] = {}
        self._registered: dict[str, int] | None = None if config.streams else {}
        self._registration_error: SkyscraperError | None = None
        self._following = Following(config, stop) if config.follow else None
        self._claim = Claim(config.kafka, config.instance) if config.follow else None
        self._open_again_at: dict[str, float] = {}
        # Streams that were looked for on disk: what a killed process left of them has been taken up.
        self._looked: set[str] = set()
        self._threads: list[threading.Thread] = []
        self.turned_at = self._started_at = time.monotonic()
        try:
            for stream in config.streams:
                self._runs[stream.id] = StreamRun(stream.id, config, self._producer)
        except SpillFailed as error:
            self._close()
            raise ConfigError(str(error)) from error

    def run(self, health: Health) -> None:
        """Until stopped, or, without `follow`, until every source has ended and all of it is acknowledged."""
        self._start("register", self._register)
        for stream in self._config.streams:
            self._runs[stream.id].begin(stream)
        try:
            while not self._stop.is_set() and not self._all_done():
                self._turn()
                if self._following is not None:
                    self._follow(self._following)
                if self._registered is not None and not health.ready and self._knows():
                    self._take_partitions(self._registered)
                    health.set_ready(True)
            self._drain()
        finally:
            self._close()
        failed = [run.capture.error for run in self._runs.values() if run.capture and run.capture.error is not None]
        if failed and self._following is None:
            raise SkyscraperError(f"{len(failed)} of {len(self._runs)} streams failed; the first: {failed[0]}")

    def _knows(self) -> bool:
        """Whether the register has been read, where it is followed."""
        if self._following is None:
            return True
        orders = self._following.orders
        return orders is not None and not orders.remembered

    def _turn(self) -> None:
        self.turned_at = time.monotonic()
        self._producer.poll(POLL_SECONDS)
        if self._producer.fatal is not None:
            raise SkyscraperError(f"the Kafka client cannot go on, start the publisher again: {self._producer.fatal}")
        if self._registration_error is not None:
            raise self._registration_error
        if self._claim is not None:
            self._claim.check()
        for run in self._runs.values():
            run.outbox.pump()
        states = Counter(run.capture.state for run in self._runs.values() if run.capture is not None)
        for state in CaptureState:
            metrics.STREAMS.labels(state.value).set(states[state])

    def _follow(self, following: Following) -> None:
        """Bring what runs nearer to what the register wants, one step a stream."""
        orders = following.orders
        if orders is None:
            # The broker is away, as for a segment that is not acknowledged for so long.
            if time.monotonic() - self._started_at > self._config.spill.after_seconds:
                following.recall()
            return
        metrics.STREAMS.labels("unusable").set(len(orders.unusable))
        self._take_up_leftovers(orders)
        for stream_id, run in self._runs.items():
            run.outbox.partition = orders.partitions.get(stream_id)
        running = {
            stream_id: run.running(registered=stream_id in orders.partitions) for stream_id, run in self._runs.items()
        }
        for action in reconcile(running, orders.wanted):
            self._act(action.act, action.stream_id, orders)
        following.given_up((orders.removing & self._looked) - self._runs.keys())

    def _act(self, act: Act, stream_id: str, orders: Orders) -> None:
        if act is Act.OPEN:
            run = self._open(stream_id)
            if run is None:
                return
            run.outbox.partition = orders.partitions.get(stream_id)
            run.begin(orders.wanted[stream_id])
        elif act is Act.STOP:
            self._runs[stream_id].end()
        elif act is Act.CAPTURE:
            self._runs[stream_id].begin(orders.wanted[stream_id])
        else:
            run = self._runs.pop(stream_id)
            run.close()
            run.forget_metrics()
        metrics.STREAM_CHANGES.labels(act.value).inc()
        log.info("stream_change", change=act.value, stream=stream_id)

    def _open(self, stream_id: str) -> StreamRun | None:
        """None, and tried again later, where the disk refuses: one stream's trouble is not everybody's."""
        if time.monotonic() < self._open_again_at.get(stream_id, 0.0):
            return None
        try:
            self._runs[stream_id] = StreamRun(stream_id, self._config, self._producer)
        except SpillFailed as error:
            self._open_again_at[stream_id] = time.monotonic() + OPEN_AGAIN_SECONDS
            metrics.OPEN_FAILURES.inc()
            log.error("stream_not_opened", stream=stream_id, error=str(error))  # noqa: TRY400 - the whole story
            return None
        self._open_again_at.pop(stream_id, None)
        return self._runs[stream_id]

    def _take_up_leftovers(self, orders: Orders) -> None:
        """Send what a killed process left on disk of streams that have been paused or are being removed since."""
        for stream_id in orders.held - self._looked:
            here = (self._config.spill.folder / stream_id).is_dir()
            if stream_id in self._runs or not here or self._open(stream_id) is not None:
                self._looked.add(stream_id)

    def _all_done(self) -> bool:
        if self._following is not None:
            return False
        runs = list(self._runs.values())
        if not all(run.over for run in runs):
            return False
        if self._registered is None and all(run.capture and run.capture.error is not None for run in runs):
            return True
        return all(run.outbox.is_empty for run in runs)

    def _drain(self) -> None:
        """After a stop: what is in memory may still be acknowledged within the time given."""
        until = time.monotonic() + self._config.shutdown_seconds
        joined = time.monotonic() + JOIN_SECONDS
        runs = list(self._runs.values())
        for run in runs:
            run.end()
        for run in runs:
            run.join(max(0.0, joined - time.monotonic()))
        for thread in self._threads:
            thread.join(max(0.0, joined - time.monotonic()))
        while time.monotonic() < until and self._registered is not None:
            # What has no partition cannot be sent: it stays on disk.
            if all(run.outbox.is_empty or run.outbox.partition is None for run in runs):
                return
            self._turn()

    def _register(self) -> None:
        """Register the streams of the own file, then follow the register, if that is wanted."""
        config = self._config
        follows = config.instance if config.follow else ""
        wanted = [(_as_registered(stream, follows), stream.partition) for stream in config.streams]
        while not self._stop.is_set() and self._registered is None:
            try:
                self._registered = register_streams(
                    config.kafka.client(), wanted, instance=config.instance, deadline_seconds=config.register_seconds
                )
            except SkyscraperError as error:
                if not error.retriable:
                    self._registration_error = error
                    return
                log.warning("registration_waits_for_the_broker", error=str(error))
                self._stop.wait(1.0)
        if self._following is not None:
            self._following.run()

    def _take_partitions(self, registered: dict[str, int]) -> None:
        for stream_id, partition in registered.items():
            if stream_id in self._runs:
                self._runs[stream_id].outbox.partition = partition
                log.info("stream_registered", stream=stream_id, partition=partition)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _close(self) -> None:
        self._stop.set()
        for run in self._runs.values():
            run.close()
        if self._claim is not None:
            self._claim.close()


def serve(config: PublisherConfig, health: Health, stop: threading.Event) -> None:
    """What `run_service` runs."""
    publisher = Publisher(config, stop)
    health.alive = lambda: time.monotonic() - publisher.turned_at < ALIVE_SECONDS
    publisher.run(health)


def _as_registered(stream: StreamConfig, follows: str) -> Stream:
    """`follows`: the name of a publisher that follows the register. To such a one the register says whether a stream is
    paused; any other publishes what its file says, and says so."""
    return Stream(
        stream_id=stream.id,
        pipeline=stream.pipeline,
        tenant=stream.tenant,
        weight=stream.weight,
        source=parse_source(stream.source.get_secret_value()).shown,
        state=STREAM_STATE_UNSPECIFIED if follows else STREAM_STATE_ACTIVE,
        configuration=stream.configuration,
        publisher=follows,
    )
