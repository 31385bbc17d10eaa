"""A pipeline turns the frames of a segment into rows: stateless operators first, then the stateful ones in order.

Both steps are functions of their arguments alone. State goes in as bytes and comes out as bytes, so that a decoder
that took over after a kill computes exactly what the killed one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skyscraper.errors import ConfigError
from skyscraper.pipeline.knobs import Configuration, Knob
from skyscraper.pipeline.rows import Row, RowSchema

ENTRY_POINTS = "skyscraper.pipelines"
# What runs per segment, in this order: frames out of the segment, `Pipeline.detect`, `Pipeline.track`.
OPERATORS = ("decode", "detect", "track")
# Those that need nothing of the segment before, and so may run anywhere.
STATELESS_OPERATORS = ("decode", "detect")


@dataclass(frozen=True)
class Sampling:
    """Which frames to decode, and how large."""

    frames_per_second: float
    width: int
    height: int


@dataclass(frozen=True)
class Frames:
    """The sampled frames of one segment.

    `images`: uint8 [n, height, width, 3], RGB. `times_seconds`: float64 [n], presentation time since the segment's
    first frame, increasing. `source_width` and `source_height` are the video's own pixels.
    """

    images: NDArray[np.uint8]
    times_seconds: NDArray[np.float64]
    source_width: int
    source_height: int
    frames_decoded: int
    """How many frames the codec had to decode to give these."""
    duration_seconds: float
    """Presentation time that the segment's frames cover."""


@dataclass(frozen=True)
class Detections:
    """Objects in one frame.

    `boxes`: float32 [m, 4] as x_min, y_min, x_max, y_max in pixels of the source video; `scores`: float32 [m];
    `labels`: int64 [m], index into the pipeline's own classes.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class SegmentContext:
    """What a pipeline may know of a segment besides its pixels. No wall clock: the same segment gives the same rows."""

    stream_id: str
    segment_id: str
    time: datetime
    """Wall clock (UTC) of the first frame."""
    duration_seconds: float


@dataclass(frozen=True)
class SegmentResult:
    rows: Sequence[Row]
    quality: float
    """The pipeline's own measure: non-negative, larger is better."""
    state: bytes
    """State of the stateful operators after this segment."""


class ModelClient(Protocol):
    """The way to a served model. It adds up the work the servers report."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[np.generic]],
        parameters: Mapping[str, int | float] | None = None,
    ) -> Mapping[str, NDArray[np.generic]]:
        """Run `model` on a batch: every input has the batch as its first axis, and so has every output. `parameters`
        are the model's own request parameters.

        Splits a batch that is larger than the server takes. Raises ModelUnavailable, Overloaded or BadSegment.
        """
        ...


class Pipeline(Protocol):
    """A V-ETL job. Implementations hold no mutable state of their own."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Changes with what it computes. State that another version has left is dropped and counted, unless the
        optional attribute `reads_state_of: frozenset[str]` names that version."""
        ...

    @property
    def knobs(self) -> Sequence[Knob]: ...

    @property
    def row_schema(self) -> RowSchema: ...

    def sampling(self, configuration: Configuration) -> Sampling: ...

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        """The stateless operators: one Detections per frame."""
        ...

    def track(
        self,
        state: bytes | None,
        context: SegmentContext,
        frames: Frames,
        detections: Sequence[Detections],
        configuration: Configuration,
    ) -> SegmentResult:
        """The stateful operators. `state` is None at the start of a stream."""
        ...


class PipelineMissing(ConfigError):
    """The pipeline, or that version of it, is not installed here."""


def load_pipeline(name: str, version: str = "") -> Pipeline:
    """The installed pipeline of that name (entry point group `skyscraper.pipelines`). Raises PipelineMissing.

    Versions live side by side: a package installs the one under the plain name, and others as `name@version`. An empty
    `version` means the plain name's, whichever that is.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    for wanted in (f"{name}@{version}", name) if version else (name,):
        if wanted in found:
            pipeline: Pipeline = found[wanted].load()()
            if version in {"", pipeline.version}:
                _check_entry(wanted, pipeline)
                return pipeline
    asked = f"pipeline {name!r}" + (f", version {version!r}," if version else "")
    raise PipelineMissing(
        f"{asked} is not installed; installed are: {', '.join(sorted(found)) or 'none'}. "
        f"A package provides one through the entry point group {ENTRY_POINTS!r}."
    )


def reads_state(pipeline: Pipeline, name: str, version: str) -> bool:
    """Whether `pipeline` can go on from state that version `version` of pipeline `name` has left.

    Its own version's it can; an older one's only where its attribute `reads_state_of` (a set of versions) names it.
    """
    if name != pipeline.name:
        return False
    readable: frozenset[str] = getattr(pipeline, "reads_state_of", frozenset())
    return version == pipeline.version or version in readable


def _check_entry(entry: str, pipeline: Pipeline) -> None:
    name, _, version = entry.partition("@")
    if pipeline.name != name or (version and pipeline.version != version):
        raise ConfigError(
            f"the entry point {entry!r} gives pipeline {pipeline.name!r}, version {pipeline.version!r}: its package "
            f"must name it {pipeline.name!r} or {pipeline.name + '@' + pipeline.version!r}"
        )
