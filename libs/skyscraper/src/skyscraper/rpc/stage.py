"""A pipeline's stateless operators as one served model: the compressed segment goes in, detections come out.

The model is called `segment.<pipeline>`. It has two inputs of one row each, `segment` (UINT8 [1, bytes]) and `request`
(UINT8 [1, bytes], a StageRequest), and one output, `result` (UINT8 [1, bytes], a StageResult). So whole-segment offload
goes through the Open Inference Protocol like everything else, and any server that can run Python can serve it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from skyscraper.errors import BadSegment, SkyscraperError
from skyscraper.pipeline.knobs import Configuration
from skyscraper.pipeline.pipeline import Detections, Frames
from skyscraper.v1 import burst_pb2

SEGMENT, REQUEST, RESULT = "segment", "request", "result"
Bytes = NDArray[np.uint8]


class StageError(SkyscraperError):
    """What a stage model gave or was given is not what it should be."""


def stage_model(pipeline: str) -> str:
    return f"segment.{pipeline}"


def stage_inputs(
    segment: bytes, configuration: Configuration, *, pipeline_version: str, expected_frames: int | None
) -> dict[str, Bytes]:
    request = burst_pb2.StageRequest(
        configuration={name: str(value) for name, value in configuration.items()}, pipeline_version=pipeline_version
    )
    if expected_frames is not None:
        request.expected_frames = expected_frames
    return {SEGMENT: _row(segment), REQUEST: _row(request.SerializeToString(deterministic=True))}


def read_inputs(inputs: Mapping[str, NDArray[Any]]) -> tuple[bytes, burst_pb2.StageRequest]:
    """Raises StageError."""
    try:
        return inputs[SEGMENT].tobytes(), burst_pb2.StageRequest.FromString(inputs[REQUEST].tobytes())
    except DecodeError as error:
        raise StageError(f"the input `request` is no StageRequest: {error}") from error


def stage_outputs(frames: Frames, detections: Sequence[Detections]) -> dict[str, Bytes]:
    result = burst_pb2.StageResult(
        times_seconds=frames.times_seconds,
        source_width=frames.source_width,
        source_height=frames.source_height,
        frames_decoded=frames.frames_decoded,
        duration_seconds=frames.duration_seconds,
        detections=[
            burst_pb2.FrameDetections(boxes=one.boxes.ravel(), scores=one.scores, labels=one.labels)
            for one in detections
        ],
    )
    return {RESULT: _row(result.SerializeToString(deterministic=True))}


def bad_outputs(error: BadSegment) -> dict[str, Bytes]:
    """The segment is at fault, not the model: whoever asked must be told so, and not try elsewhere."""
    result = burst_pb2.StageResult(bad_reason=error.reason, bad_detail=str(error))
    return {RESULT: _row(result.SerializeToString(deterministic=True))}


def read_outputs(outputs: Mapping[str, NDArray[Any]]) -> tuple[Frames, list[Detections]]:
    """Frames without their pixels, and the detections. Raises BadSegment as decoding here would, and StageError."""
    try:
        result = burst_pb2.StageResult.FromString(outputs[RESULT].tobytes())
    except (DecodeError, KeyError) as error:
        raise StageError(f"the output `result` is no StageResult: {error}") from error
    if result.bad_reason:
        raise BadSegment(result.bad_reason, result.bad_detail)
    if len(result.detections) != len(result.times_seconds):
        raise StageError(f"{len(result.detections)} detections of {len(result.times_seconds)} frames")
    frames = Frames(
        images=np.empty((0, 0, 0, 3), dtype=np.uint8),
        times_seconds=np.array(result.times_seconds, dtype=np.float64),
        source_width=result.source_width,
        source_height=result.source_height,
        frames_decoded=result.frames_decoded,
        duration_seconds=result.duration_seconds,
    )
    return frames, [_detections(one) for one in result.detections]


def _detections(message: burst_pb2.FrameDetections) -> Detections:
    if len(message.boxes) != 4 * len(message.scores) or len(message.scores) != len(message.labels):
        raise StageError(
            f"{len(message.boxes)} edges of boxes, {len(message.scores)} scores and {len(message.labels)} labels"
        )
    return Detections(
        np.array(message.boxes, dtype=np.float32).reshape(-1, 4),
        np.array(message.scores, dtype=np.float32),
        np.array(message.labels, dtype=np.int64),
    )


def _row(data: bytes) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8).reshape(1, -1)
