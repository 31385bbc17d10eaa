"""The crops pipeline: every detection is cut out and classified again, by object and time of day.

The detector was trained on photographs by day; the classifier on the street camera's own ground truth, by day, dusk and
night. It drops what the detector mistook for an object, and tells people from vehicles where the detector wavers. It is
a mixture of experts that the inference service serves; how many of its experts may be chosen, and how many look at a
crop, are knobs. `python -m skyscraper_pipelines.crops.train` makes the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from skyscraper.models.detect import Detector
from skyscraper.models.detections import select
from skyscraper.models.tiles import Tiling
from skyscraper.pipeline import (
    Column,
    ColumnType,
    Configuration,
    Detections,
    Frames,
    Knob,
    ModelClient,
    Row,
    RowSchema,
    Sampling,
    SegmentContext,
    SegmentResult,
)
from skyscraper.track import Sighting, Tracker, follow

from skyscraper_pipelines.crops.cutting import CLASSES, LIGHTS, NOTHING, OBJECTS, cut

MODEL = "street-crops"
_DETECTOR = "nanodet-g"
_DETECTED = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
# As in the counting pipeline.
_DETECTION_SCORE = 0.3
_ACTIVATION_SCORE = 0.5
_NMS_IOU = 0.5
_LOST_SECONDS = 1.0
_TRACK_IOU = 0.1
_NOTHING = OBJECTS.index(NOTHING)


class CropsPipeline:
    """One row per tracked object and segment. Quality: object-seconds, weighted with the certainty of both networks."""

    name = "crops"
    version = "1"
    knobs = (
        Knob("frame_rate", (1, 2, 5, 10), 5, "Frames analysed per second of video."),
        Knob("input_size", (224, 320, 416), 320, "Side of the square the detector sees, in pixels."),
        Knob("experts", (2, 4, 8), 8, "How many of the classifier's experts may be chosen."),
        Knob("top_k", (1, 2), 2, "How many experts look at each crop."),
    )
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "When the object was first seen in the segment."),
            Column("track_id", ColumnType.INT64, "The object, unique within its stream."),
            Column("label", ColumnType.STRING, "What it is: person or vehicle, as in most of its crops."),
            Column("light", ColumnType.STRING, "Time of day by the picture: night, dusk or day."),
            Column("last_seen", ColumnType.TIMESTAMP, "When it was last seen in the segment."),
            Column("frames_seen", ColumnType.INT64, "In how many of the analysed frames it was seen."),
            Column("frames_analysed", ColumnType.INT64, "How many frames of the segment were analysed."),
            Column("confidence", ColumnType.FLOAT64, "Mean of detection score times certainty of an object, 0 to 1."),
            Column("x_min", ColumnType.FLOAT64, "Left edge when last seen, pixels of the source video."),
            Column("y_min", ColumnType.FLOAT64, "Upper edge."),
            Column("x_max", ColumnType.FLOAT64, "Right edge."),
            Column("y_max", ColumnType.FLOAT64, "Lower edge."),
        ),
    )

    def sampling(self, configuration: Configuration) -> Sampling:
        return _detector(configuration).sampling(float(configuration["frame_rate"]))

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        found = _detector(configuration).run(frames, models)
        crops = [cut(image, one.boxes * _scale(frames)) for image, one in zip(frames.images, found, strict=True)]
        if not sum(map(len, crops)):
            return found
        parameters = {"top_k": int(configuration["top_k"]), "active_experts": int(configuration["experts"])}
        told = models.infer(MODEL, {"images": np.concatenate(crops)}, parameters)["probabilities"]
        ends = np.cumsum([len(one) for one in crops])
        return [_classified(one, part) for one, part in zip(found, np.split(told, ends[:-1]), strict=True)]

    def track(
        self,
        state: bytes | None,
        context: SegmentContext,
        frames: Frames,
        detections: Sequence[Detections],
        configuration: Configuration,
    ) -> SegmentResult:
        tracker = Tracker(activation_score=_ACTIVATION_SCORE, lost_seconds=_LOST_SECONDS, minimum_iou=_TRACK_IOU)
        followed = follow(tracker, state, context, frames, detections)
        return SegmentResult(
            rows=[_row(context, one, followed.frames_analysed) for one in followed.sightings.values()],
            quality=followed.seconds(context, weighted=True),
            state=followed.state,
        )


def _detector(configuration: Configuration) -> Detector:
    return Detector(
        model=_DETECTOR,
        wanted=_DETECTED,
        tiling=Tiling(1, int(configuration["input_size"])),
        score_threshold=_DETECTION_SCORE,
        iou_threshold=_NMS_IOU,
    )


def _scale(frames: Frames) -> NDArray[np.float32]:
    """From the source's pixels to the frames'. [4]"""
    _, height, width, _ = frames.images.shape
    return np.array([width / frames.source_width, height / frames.source_height] * 2, dtype=np.float32)


def _classified(found: Detections, probabilities: NDArray[np.generic]) -> Detections:
    """One frame's detections with the classifier's classes [m, 9]: no mistakes, and one box for each object.

    A frame has one light, so all its crops decide on it together. What the detector took for a car and for a truck is
    one vehicle.
    """
    if not len(found.boxes):
        return found
    by_object = np.asarray(probabilities, dtype=np.float32).reshape(-1, len(OBJECTS), len(LIGHTS))
    light = int(by_object.sum(axis=(0, 1)).argmax())
    objects = by_object.sum(axis=2)
    best = objects.argmax(axis=1)
    kept = best != _NOTHING
    scores = found.scores * (1 - objects[:, _NOTHING])
    labels = (best * len(LIGHTS) + light).astype(np.int64)
    # ByteTrack's own thresholds decide on scores.
    return select(found.boxes[kept], scores[kept], labels[kept], score_threshold=0.0, iou_threshold=_NMS_IOU)


def _row(context: SegmentContext, sighting: Sighting, frames_analysed: int) -> Row:
    last = sighting.objects[-1]
    x_min, y_min, x_max, y_max = (round(edge, 1) for edge in last.box)
    classes = [CLASSES[tracked.label].split("/") for tracked in sighting.objects]
    return {
        "event_time": context.time + timedelta(seconds=sighting.times_seconds[0]),
        "track_id": last.track_id,
        "label": _most_common([thing for thing, _ in classes]),
        "light": _most_common([light for _, light in classes]),
        "last_seen": context.time + timedelta(seconds=sighting.times_seconds[-1]),
        "frames_seen": len(sighting.objects),
        "frames_analysed": frames_analysed,
        "confidence": round(sighting.mean_score, 3),
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
    }


def _most_common(words: Sequence[str]) -> str:
    """Of equally common ones the first."""
    return Counter(words).most_common(1)[0][0]
