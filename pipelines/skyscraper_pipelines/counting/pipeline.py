"""The counting pipeline: detect people and vehicles, follow them, and write one row per object and segment.

`SELECT date_trunc('minute', event_time), count(DISTINCT track_id) FROM counting GROUP BY 1` is people per minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from skyscraper.models.detect import Detector
from skyscraper.models.detections import COCO_LABELS
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

COUNTED = ("person", "bicycle", "car", "motorcycle", "bus", "truck")

# ByteTrack continues tracks with weak detections, so the detector's threshold lies below the one that begins a track.
_DETECTION_SCORE = 0.3
_ACTIVATION_SCORE = 0.5
_NMS_IOU = 0.5
# A pedestrian behind a lamp post is back within a second; longer guesses join strangers.
_LOST_SECONDS = 1.0
# At 5 frames per second a walking person's boxes overlap by about a half; at 1 they hardly do.
_TRACK_IOU = 0.1


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
        return _detector(configuration).sampling(float(configuration["frame_rate"]))

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        return _detector(configuration).run(frames, models)

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
        model=str(configuration["model"]),
        wanted=COUNTED,
        tiling=Tiling(1, int(configuration["input_size"])),
        score_threshold=_DETECTION_SCORE,
        iou_threshold=_NMS_IOU,
    )


def _row(context: SegmentContext, sighting: Sighting, frames_analysed: int) -> Row:
    last = sighting.objects[-1]
    x_min, y_min, x_max, y_max = (round(edge, 1) for edge in last.box)
    return {
        "event_time": context.time + timedelta(seconds=sighting.times_seconds[0]),
        "track_id": last.track_id,
        "label": COCO_LABELS[last.label],
        "last_seen": context.time + timedelta(seconds=sighting.times_seconds[-1]),
        "frames_seen": len(sighting.objects),
        "frames_analysed": frames_analysed,
        "confidence": round(sighting.mean_score, 3),
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
    }
