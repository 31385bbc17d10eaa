"""A lane is one partition's way through this process: a bounded queue, a thread, and outcomes waiting for a commit.

Each owned partition has a lane of its own, so that a stream whose step is slow, or waits for a busy model, holds no
other. What a lane holds is bounded: beyond the bounds the consumer pauses the partition, and the backlog stays in
Kafka.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable

import structlog
from skyscraper.errors import SkyscraperError
from skyscraper.v1 import state_pb2

from skyscraper_decoder import metrics
from skyscraper_decoder.outcome import Outcome
from skyscraper_decoder.step import Gap, Segment, SegmentStep
from skyscraper_decoder.turnstile import Turnstile

log = structlog.get_logger()

# A model server that restarts is back within seconds; longer waits would only add to the backlog.
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 2.0


class Lane:
    """One partition, processed in order by one thread.

    The owner thread calls `offer`, `finished`, `committed` and `close`; everything between is the lane's own thread.
    """

    def __init__(
        self,
        partition: int,
        next_offset: int,
        step: SegmentStep,
        states: Iterable[state_pb2.OperatorState],
        turnstile: Turnstile,
        *,
        refused: Callable[[str], bool],
        queue_bytes: int,
        uncommitted_segments: int,
    ) -> None:
        self.partition = partition
        self.next_offset = next_offset
        """The offset that follows everything offered so far."""
        self._step = step
        self._states = {state.stream_id: state for state in states}
        self._turnstile = turnstile
        self._refused = refused
        self._queue_bytes = queue_bytes
        self._uncommitted_segments = uncommitted_segments
        self._queue: deque[Segment | Gap] = deque()
        self._queued_bytes = 0
        self._finished: deque[Outcome] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"lane-{partition}", daemon=True)
        self._thread.start()

    def offer(self, segment: Segment) -> None:
        """Take a segment. Never refuses: `full` tells the owner to pause before the next."""
        with self._changed:
            self._queue.append(segment)
            self._queued_bytes += segment.size_bytes
            self.next_offset = segment.offset + 1
            self._changed.notify_all()

    def offer_gap(self, next_offset: int, lost: int) -> None:
        """Tell that retention took the `lost` offsets before `next_offset`."""
        with self._changed:
            self._queue.append(Gap(self.partition, next_offset, lost))
            self.next_offset = next_offset
            self._changed.notify_all()

    @property
    def stream_ids(self) -> list[str]:
        with self._changed:
            return list(self._states)

    @property
    def full(self) -> bool:
        with self._changed:
            return self._queued_bytes >= self._queue_bytes

    @property
    def hungry(self) -> bool:
        """Less than a quarter of the queue is left: time to fetch. Apart from `full` so that pausing is rare."""
        with self._changed:
            return self._queued_bytes < self._queue_bytes // 4

    def finished(self) -> list[Outcome]:
        """Outcomes in order that wait for a commit. They stay until `committed`. Raises what broke the lane."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            return list(self._finished)

    def committed(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._finished.popleft()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop without waiting: whatever the thread still computes is dropped; the next owner does it again."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._finished.clear()
            self._changed.notify_all()

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                outcome = self._process(item)
                with self._changed:
                    if self._closed or outcome is None:
                        return
                    if outcome.state is not None:
                        self._states[outcome.state.stream_id] = outcome.state
                    self._finished.append(outcome)
        except BaseException as error:  # noqa: BLE001 - handed to the owner, which ends the process
            with self._changed:
                self._failure = error

    def _next(self) -> Segment | Gap | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._queue and len(self._finished) < self._uncommitted_segments)
            )
            if self._closed:
                return None
            item = self._queue.popleft()
            self._queued_bytes -= item.size_bytes
            return item

    def _process(self, item: Segment | Gap) -> Outcome | None:
        """The step's outcome; waits out what is retriable, for as long as the lane is open."""
        if isinstance(item, Gap):
            return self._step.account_loss(item, self._states)
        wait_seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                return self._take_turn(item)
            except SkyscraperError as error:
                if not error.retriable:
                    raise
                metrics.RETRIES.labels(type(error).__name__).inc()
                log.warning("stream_waits", partition=self.partition, offset=item.offset, error=str(error))
            with self._changed:
                # Full jitter, so that the streams of a fleet do not return to a restarted server all at once.
                if self._changed.wait_for(lambda: self._closed, timeout=random.uniform(0, wait_seconds)):  # noqa: S311
                    return None
            wait_seconds = min(2 * wait_seconds, _LAST_RETRY_SECONDS)

    def _take_turn(self, segment: Segment) -> Outcome | None:
        """One try of the step, when the pool is free for it; None where the lane was closed first."""
        turn = self._turnstile.enter(
            self.partition,
            arrived_seconds=segment.arrived_seconds,
            refused=self._refused((segment.key or b"").decode("ascii", errors="replace")),
            closed=lambda: self._closed,
        )
        if turn is None:
            return None
        try:
            return self._step.run(segment, self._states, turn)
        finally:
            turn.end()
