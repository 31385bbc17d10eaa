"""The mot pipeline: multi-object tracking of people, one row per person and analysed frame.

After the paper's MOT workload (section 5.2, supplement J), whose TransMOT has no public model. Here the detector is
NanoDet-g and the tracker ByteTrack. The knobs are the paper's: its model size is ours of the detector's input (one
network at three sizes), and its history, the frames in which a person is looked for, is how many analysed frames ago
a person may have been seen last and still be the same person.

`SELECT track_id, min(event_time), max(event_time) FROM mot GROUP BY 1` is who came and went.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from skyscraper.models.detect import Detector
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
from skyscraper.track import Tracker, follow

_MODEL = "nanodet-g"
# Small, medium and large: person AP50 on the test footage 0.76, 0.89 and 0.90 at 1, 1.9 and 3.1 times the work.
_TILE_PIXELS = {"small": 224, "medium": 320, "large": 416}
# A detector's weak boxes only continue tracks (ByteTrack).
_DETECTION_SCORE = 0.3
_ACTIVATION_SCORE = 0.5
_NMS_IOU = 0.5
_TRACK_IOU = 0.1


class MotPipeline:
    """Quality: person-seconds, weighted with the detector's certainty; no ground truth is needed for it."""

    name = "mot"
    version = "1"
    knobs = (
        Knob("frame_rate", (1, 2, 5, 10), 5, "Frames analysed per second of video."),
        Knob("tiles", ("1x1", "2x2"), "1x1", "The detector sees the whole frame, or four overlapping parts of it."),
        Knob("history", (1, 2, 3, 5), 3, "How many analysed frames ago a person may have been seen last."),
        Knob("model_size", ("small", "medium", "large"), "medium", "The detector's input: 224, 320 or 416 pixels."),
    )
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "The frame's time."),
            Column("track_id", ColumnType.INT64, "The person, unique within the stream while in view."),
            Column("frame", ColumnType.INT64, "Which of the segment's analysed frames, from 0."),
            Column("frames_analysed", ColumnType.INT64, "How many frames of the segment were analysed."),
            Column("confidence", ColumnType.FLOAT64, "Detection score, 0 to 1."),
            Column("x_min", ColumnType.FLOAT64, "Left edge, pixels of the source video."),
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
        tracker = Tracker(
            activation_score=_ACTIVATION_SCORE,
            lost_seconds=_lost_seconds(frames, configuration),
            minimum_iou=_TRACK_IOU,
        )
        followed = follow(tracker, state, context, frames, detections)
        sightings = [
            (frame, time_seconds, tracked)
            for one in followed.sightings.values()
            for frame, time_seconds, tracked in zip(one.frames, one.times_seconds, one.objects, strict=True)
        ]
        rows: list[Row] = []
        for frame, time_seconds, tracked in sorted(sightings, key=lambda one: one[0]):
            x_min, y_min, x_max, y_max = (round(edge, 1) for edge in tracked.box)
            rows.append(
                {
                    "event_time": context.time + timedelta(seconds=time_seconds),
                    "track_id": tracked.track_id,
                    "frame": frame,
                    "frames_analysed": followed.frames_analysed,
                    "confidence": round(tracked.score, 3),
                    "x_min": x_min,
                    "y_min": y_min,
                    "x_max": x_max,
                    "y_max": y_max,
                }
            )
        return SegmentResult(rows, followed.seconds(context, weighted=True), followed.state)


def _lost_seconds(frames: Frames, configuration: Configuration) -> float:
    """`history` frames, and half a frame for timestamps that are not quite even. A camera may be slower than asked."""
    interval = 1 / float(configuration["frame_rate"])
    if len(frames.times_seconds) > 1:
        interval = max(interval, float(np.median(np.diff(frames.times_seconds))))
    return (int(configuration["history"]) + 0.5) * interval


def _detector(configuration: Configuration) -> Detector:
    return Detector(
        model=_MODEL,
        wanted=("person",),
        tiling=Tiling.parse(str(configuration["tiles"]), _TILE_PIXELS[str(configuration["model_size"])]),
        score_threshold=_DETECTION_SCORE,
        iou_threshold=_NMS_IOU,
    )
