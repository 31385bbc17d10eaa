"""What configurations yield and cost on a segment, by running them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context, parent_process

from skyscraper.media.decode import decode_segment
from skyscraper.media.segments import VideoSegment
from skyscraper.pipeline import Configuration, Detections, Frames, Pipeline, SegmentContext, load_pipeline
from skyscraper.record.models import MeteredModels

# Any moment will do, as long as it is the same in every run.
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Detected:
    """What the stateless operators of one configuration made of one segment. CPU seconds by operator."""

    frames: Frames
    detections: Sequence[Detections]
    decode_core_seconds: float
    detect_core_seconds: float


@dataclass(frozen=True)
class Measured:
    """One configuration on one segment: its quality, and core-seconds by operator."""

    quality: float
    core_seconds: dict[str, float]

    @property
    def work(self) -> float:
        return sum(self.core_seconds.values())


class Detector:
    """Runs the stateless operators in this process."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._models = MeteredModels()

    def run(self, segment: VideoSegment, configurations: Sequence[Configuration]) -> list[Detected]:
        """Every configuration on one segment."""
        self._models.forget()
        return [self._one(segment, configuration) for configuration in configurations]

    def _one(self, segment: VideoSegment, configuration: Configuration) -> Detected:
        started = time.thread_time()
        frames = decode_segment(segment.value, self._pipeline.sampling(configuration), expected_frames=segment.frames)
        decoded = time.thread_time()
        self._models.take()
        detections = self._pipeline.detect(frames, configuration, self._models)
        spent, charged = self._models.take()
        # What the client took here is replaced by what its images cost when they were first computed.
        detect = time.thread_time() - decoded - spent + charged
        return Detected(replace(frames, images=frames.images[:0]), detections, decoded - started, detect)


class Tracks:
    """The stateful operators of all configurations along one stream. Segments must come in order."""

    def __init__(self, pipeline: Pipeline, configurations: Sequence[Configuration]) -> None:
        self._pipeline = pipeline
        self._configurations = configurations
        self.states: list[bytes | None] = [None] * len(configurations)

    def follow(self, segment: VideoSegment, detected: Sequence[Detected]) -> list[Measured]:
        context = SegmentContext(
            stream_id="offline",
            segment_id="",
            time=_EPOCH + timedelta(seconds=segment.start_seconds),
            duration_seconds=segment.duration_seconds,
        )
        found = []
        for index, (configuration, one) in enumerate(zip(self._configurations, detected, strict=True)):
            started = time.thread_time()
            result = self._pipeline.track(self.states[index], context, one.frames, one.detections, configuration)
            self.states[index] = result.state
            work = {
                "decode": one.decode_core_seconds,
                "detect": one.detect_core_seconds,
                "track": time.thread_time() - started,
            }
            found.append(Measured(float(result.quality), work))
        return found


def detect_all(
    pipeline: str,
    segments: Sequence[VideoSegment],
    configurations: Sequence[Sequence[Configuration]],
    *,
    processes: int = 0,
) -> Iterator[list[Detected]]:
    """The stateless operators over all segments, in their order, on all cores (or on `processes` of them).

    configurations: of each segment.
    """
    workers = processes or os.cpu_count() or 1
    # A forked child of a process with threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (pipeline,)) as pool:
        yield from pool.map(_work, segments, configurations, chunksize=1)


_worker: list[Detector] = []


def _begin(pipeline: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.append(Detector(load_pipeline(pipeline)))


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(segment: VideoSegment, configurations: Sequence[Configuration]) -> list[Detected]:
    return _worker[0].run(segment, configurations)
