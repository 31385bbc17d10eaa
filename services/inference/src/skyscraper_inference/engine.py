"""The engine: a bounded queue in front of a few threads, each of which runs one batch at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import structlog
from skyscraper.errors import Overloaded, SkyscraperError

from skyscraper_inference import metrics
from skyscraper_inference.backends import ModelFailed, Tensor
from skyscraper_inference.batching import ArrivalRate, CostFit, Go, Waiting, expired, next_batch
from skyscraper_inference.parameters import Parameters
from skyscraper_inference.repository import Model

log = structlog.get_logger()

# Told to refused clients: about one batch on a busy CPU.
_RETRY_SECONDS = 0.25
# Each decision looks at all groups; a model is asked with a handful of shapes and parameters at a time.
_MAX_GROUPS = 256


class DeadlineGone(SkyscraperError):
    """The request's deadline passed before it could run."""


class Draining(SkyscraperError):
    """The service is stopping and takes nothing new."""

    retriable = True


@dataclass(frozen=True)
class Answer:
    """A request's share of a batch."""

    outputs: Mapping[str, Tensor]
    work_core_seconds: float
    queue_seconds: float
    batch_rows: int


@dataclass(frozen=True)
class _Request:
    model: Model
    inputs: Mapping[str, Tensor]
    parameters: Parameters
    waiting: Waiting
    answer: Future[Answer]


class Engine:
    """Takes requests from any thread. `close` finishes what is queued."""

    def __init__(self, *, instances: int, queue_bytes: int, max_window_seconds: float) -> None:
        self._queue_bytes = queue_bytes
        self._max_window_seconds = max_window_seconds
        self._changed = threading.Condition()
        self._requests: dict[int, _Request] = {}
        self._queues: dict[Hashable, deque[Waiting]] = {}
        self._max_rows: dict[Hashable, int] = {}
        self._fits: dict[Hashable, CostFit] = {}
        self._rates: dict[Hashable, ArrivalRate] = {}
        self._queued_bytes = 0
        self._next_number = 0
        self._closed = False
        self._end_seconds = float("inf")
        self._threads = [
            threading.Thread(target=self._run, name=f"instance-{index}", daemon=True) for index in range(instances)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, model: Model, inputs: Mapping[str, Tensor], parameters: Parameters, *, deadline_seconds: float
    ) -> Future[Answer]:
        """Queue a request; all inputs have the batch as first axis. `deadline_seconds` on the monotonic clock. Requests
        whose parameters differ do not share a batch.

        Raises Overloaded where the queue is full, Draining after `close`. The future may raise DeadlineGone or
        ModelFailed.
        """
        first = next(iter(inputs.values()))
        size_bytes = sum(tensor.nbytes for tensor in inputs.values())
        # A model that takes one row at a time joins nothing, so its shapes need not agree: one group, however many.
        shapes = (
            ()
            if model.max_batch == 1
            else tuple((name, tensor.shape[1:], tensor.dtype.str) for name, tensor in sorted(inputs.items()))
        )
        group = (model.name, shapes, tuple(sorted(parameters.items())))
        now = time.monotonic()
        with self._changed:
            if self._closed:
                raise Draining("this server is stopping; another one takes over")
            if self._queued_bytes + size_bytes > self._queue_bytes:
                metrics.REFUSED.labels("queue_full").inc()
                raise Overloaded(
                    f"the queue holds {self._queued_bytes} of {self._queue_bytes} bytes; {size_bytes} more do not fit",
                    retry_after_seconds=_RETRY_SECONDS,
                )
            waiting = Waiting(self._next_number, len(first), size_bytes, now, deadline_seconds)
            self._next_number += 1
            request = _Request(model, inputs, parameters, waiting, Future())
            self._requests[waiting.number] = request
            if group not in self._queues:
                self._forget_idle_groups()
            self._queues.setdefault(group, deque()).append(waiting)
            self._max_rows[group] = model.max_batch
            self._fits.setdefault(group, CostFit())
            self._rates.setdefault(group, ArrivalRate()).add(now, waiting.rows)
            self._account(size_bytes)
            self._changed.notify()
        return request.answer

    @property
    def alive(self) -> bool:
        """False when an instance has died, which only a bug can do: the process should then be replaced."""
        return self._closed or all(thread.is_alive() for thread in self._threads)

    def close(self, *, deadline_seconds: float) -> bool:
        """Take nothing new; finish what is queued as far as it can end before the deadline, and hand back the rest
        (Draining). False where the deadline came first all the same."""
        with self._changed:
            self._closed = True
            self._end_seconds = time.monotonic() + deadline_seconds
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, self._end_seconds - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while True:
            taken = self._take()
            if taken is None:
                return
            group, requests = taken
            self._execute(group, requests)

    def _take(self) -> tuple[Hashable, list[_Request]] | None:
        """The next batch, or None when the engine is closed and empty."""
        with self._changed:
            while True:
                now = time.monotonic()
                self._drop_expired(now)
                decision = next_batch(
                    self._queues,
                    now=now,
                    max_rows=self._max_rows,
                    costs={group: fit.cost() for group, fit in self._fits.items() if self._queues[group]},
                    rates={group: rate.rows_per_second(now) for group, rate in self._rates.items()},
                    max_window_seconds=0.0 if self._closed else self._max_window_seconds,
                )
                if isinstance(decision, Go):
                    queue = self._queues[decision.group]
                    for _ in decision.numbers:
                        queue.popleft()
                    requests = [self._requests.pop(number) for number in decision.numbers]
                    self._account(-sum(request.waiting.size_bytes for request in requests))
                    if self._ends_in_time(decision.group, requests, now):
                        return decision.group, requests
                    for request in requests:
                        metrics.REFUSED.labels("handed_back").inc()
                        request.answer.set_exception(Draining("this server is going away before its turn comes"))
                    continue
                if self._closed:
                    return None
                self._changed.wait(decision.seconds)

    def _ends_in_time(self, group: Hashable, requests: list[_Request], now: float) -> bool:
        cost = self._fits[group].cost()
        rows = sum(request.waiting.rows for request in requests)
        return now + cost.fixed_seconds + cost.row_seconds * rows <= self._end_seconds

    def _forget_idle_groups(self) -> None:
        """What was learned of groups that nobody waits in, once there are too many: clients choose shapes and
        parameters."""
        if len(self._queues) < _MAX_GROUPS:
            return
        for group in [group for group, queue in self._queues.items() if not queue]:
            for known in (self._queues, self._max_rows, self._fits, self._rates):
                del known[group]

    def _drop_expired(self, now: float) -> None:
        for queue in self._queues.values():
            late = set(expired(queue, now))
            if not late:
                continue
            kept = [waiting for waiting in queue if waiting.number not in late]
            queue.clear()
            queue.extend(kept)
            for number in late:
                request = self._requests.pop(number)
                self._account(-request.waiting.size_bytes)
                metrics.REFUSED.labels("deadline").inc()
                request.answer.set_exception(DeadlineGone("the deadline passed while the request waited for its turn"))

    def _execute(self, group: Hashable, requests: list[_Request]) -> None:
        model = requests[0].model
        rows = sum(request.waiting.rows for request in requests)
        started_wall, started_cpu = time.monotonic(), time.thread_time()
        try:
            inputs = _joined(requests)
            outputs = model.backend.run(inputs, requests[0].parameters)
        except ModelFailed as error:
            self._fail(requests, error)
            return
        except Exception as error:
            # A backend that breaks its word must not take its thread with it.
            log.exception("backend_raised", model=model.name)
            self._fail(requests, ModelFailed(repr(error)))
            return
        work, wall = time.thread_time() - started_cpu, time.monotonic() - started_wall
        with self._changed:
            if group in self._fits:
                self._fits[group].add(rows, wall)
        metrics.WORK.labels(model.name).inc(work)
        metrics.BATCH_ROWS.labels(model.name).observe(rows)
        metrics.BATCH_SECONDS.labels(model.name).observe(wall)
        start = 0
        for request in requests:
            count = request.waiting.rows
            part = {name: tensor[start : start + count] for name, tensor in outputs.items()}
            start += count
            waited = started_wall - request.waiting.arrived_seconds
            metrics.QUEUE_SECONDS.labels(model.name).observe(waited)
            request.answer.set_result(Answer(part, work * count / rows, waited, rows))

    def _fail(self, requests: list[_Request], error: ModelFailed) -> None:
        """A batch that failed is tried request by request, so that one client's input costs no other client."""
        if len(requests) == 1:
            requests[0].answer.set_exception(error)
            return
        for request in requests:
            try:
                started = time.thread_time()
                outputs = request.model.backend.run(request.inputs, request.parameters)
            except ModelFailed as own:
                request.answer.set_exception(own)
            else:
                work = time.thread_time() - started
                request.answer.set_result(Answer(outputs, work, 0.0, request.waiting.rows))

    def _account(self, size_bytes: int) -> None:
        self._queued_bytes += size_bytes
        metrics.QUEUE_BYTES.set(self._queued_bytes)


def _joined(requests: list[_Request]) -> Mapping[str, Tensor]:
    """One request alone is not copied."""
    if len(requests) == 1:
        return requests[0].inputs
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in requests[0].inputs}
