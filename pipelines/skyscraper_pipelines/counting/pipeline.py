"""The counting pipeline: detect people and vehicles, follow them, and write one row per object and segment.

`SELECT date_trunc('minute', event_time), count(DISTINCT track_id) FROM counting GROUP BY 1` is people per minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
from skyscraper.models.detections import COCO_LABELS, select
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
from skyscraper.track import TrackedObject, Tracker

COUNTED = ("person", "bicycle", "car", "motorcycle", "bus", "truck")

# ByteTrack continues tracks with weak detections, so the detector's threshold lies below the one that begins a track.
_DETECTION_SCORE = 0.3
_ACTIVATION_SCORE = 0.5
_NMS_IOU = 0.5
# A pedestrian behind a lamp post is back within a second; longer guesses join strangers.
_LOST_SECONDS = 1.0
# At 5 frames per second a walking person's boxes overlap by about a half; at 1 they hardly do.
_TRACK_IOU = 0.1


@dataclass
class _Sighting:
    """What was seen of one object within a segment."""

    objects: list[TrackedObject] = field(default_factory=list)
    times_seconds: list[float] = field(default_factory=list)


class CountingPipeline:
    """One row per tracked object and segment. Quality: object-seconds, weighted with the detector's certainty."""

    name = "counting"
    version = "1"
    knobs = (
        Knob("frame_rate", (1, 2, 5, 10), 5, "Frames analysed per second of video."),
        Knob("input_size", (224, 320, 416, 608), 320, "Side of the square the detector sees, in pixels."),
        Knob("model", ("yolov3-tiny", "nanodet-g"), "nanodet-g", "The detector."),
    )
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "When the object was first seen in the segment."),
            Column("track_id", ColumnType.INT64, "The object, unique within its stream."),
            Column("label", ColumnType.STRING, "What it is: " + ", ".join(COUNTED) + "."),
            Column("last_seen", ColumnType.TIMESTAMP, "When it was last seen in the segment."),
            Column("frames_seen", ColumnType.INT64, "In how many of the analysed frames it was seen."),
            Column("frames_analysed", ColumnType.INT64, "How many frames of the segment were analysed."),
            Column("confidence", ColumnType.FLOAT64, "Mean detection score, 0 to 1."),
            Column("x_min", ColumnType.FLOAT64, "Left edge when last seen, pixels of the source video."),
            Column("y_min", ColumnType.FLOAT64, "Upper edge."),
            Column("x_max", ColumnType.FLOAT64, "Right edge."),
            Column("y_max", ColumnType.FLOAT64, "Lower edge."),
        ),
    )

    def sampling(self, configuration: Configuration) -> Sampling:
        size = int(configuration["input_size"])
        return Sampling(float(configuration["frame_rate"]), width=size, height=size)

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        outputs = models.infer(str(configuration["model"]), {"images": frames.images})
        _, height, width, _ = frames.images.shape
        scale = np.array([frames.source_width / width, frames.source_height / height] * 2, dtype=np.float32)
        counted = np.array([COCO_LABELS.index(label) for label in COUNTED])
        found = []
        for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"], strict=True):
            kept = np.isin(labels, counted)
            one = select(
                boxes[kept], scores[kept], labels[kept], score_threshold=_DETECTION_SCORE, iou_threshold=_NMS_IOU
            )
            found.append(Detections(one.boxes * scale, one.scores, one.labels))
        return found

    def track(
        self,
        state: bytes | None,
        context: SegmentContext,
        frames: Frames,
        detections: Sequence[Detections],
        configuration: Configuration,
    ) -> SegmentResult:
        tracker = Tracker(activation_score=_ACTIVATION_SCORE, lost_seconds=_LOST_SECONDS, minimum_iou=_TRACK_IOU)
        if state is not None:
            tracker.restore(state)
        start_seconds = context.time.timestamp()
        sightings: dict[int, _Sighting] = {}
        for time_seconds, found in zip(frames.times_seconds.tolist(), detections, strict=True):
            for tracked in tracker.update(start_seconds + time_seconds, found):
                sighting = sightings.setdefault(tracked.track_id, _Sighting())
                sighting.objects.append(tracked)
                sighting.times_seconds.append(time_seconds)
        analysed = len(frames.times_seconds)
        rows = [_row(context, sighting, analysed) for _, sighting in sorted(sightings.items())]
        certainty = sum(tracked.score for sighting in sightings.values() for tracked in sighting.objects)
        return SegmentResult(
            rows=rows,
            quality=certainty * context.duration_seconds / analysed if analysed else 0.0,
            state=tracker.snapshot(),
        )


def _row(context: SegmentContext, sighting: _Sighting, frames_analysed: int) -> Row:
    last = sighting.objects[-1]
    x_min, y_min, x_max, y_max = (round(edge, 1) for edge in last.box)
    return {
        "event_time": context.time + timedelta(seconds=sighting.times_seconds[0]),
        "track_id": last.track_id,
        "label": COCO_LABELS[last.label],
        "last_seen": context.time + timedelta(seconds=sighting.times_seconds[-1]),
        "frames_seen": len(sighting.objects),
        "frames_analysed": frames_analysed,
        "confidence": round(sum(tracked.score for tracked in sighting.objects) / len(sighting.objects), 3),
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
    }
