"""The covid pipeline: find people, carry them on between detections, follow them, and measure distances on the ground.

After the paper's COVID workload (section 5.2, supplement J). Detector and carrier are others (NanoDet-g, optical flow),
and there is no classifier of face masks: no model that we may ship tells masks at this distance.

`SELECT date_trunc('hour', event_time), sum(seconds_near) FROM covid GROUP BY 1` is how strictly people keep apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from skyscraper.models.detect import Detector, frames_at
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
from skyscraper.track import Followed, Sighting, Tracker, follow
from skyscraper.track.flow import carry

from skyscraper_pipelines.covid.ground import nearest_metres
from skyscraper_pipelines.covid.settings import STREET, CovidSettings, covid_settings

_MODEL, _TILE_PIXELS = "nanodet-g", 320
_DETECTION_SCORE = 0.3
_ACTIVATION_SCORE = 0.5
_NMS_IOU = 0.5
# As in the counting pipeline; half a second more, so that at one frame a second a track outlives a missed frame.
_LOST_SECONDS = 1.5
_TRACK_IOU = 0.1


@dataclass(frozen=True)
class _Distances:
    """Of one person, at each of its sightings: metres [n, 2], NaN above the horizon, and to the nearest other [n]."""

    positions: NDArray[np.float64]
    nearest: NDArray[np.float64]


class CovidPipeline:
    """One row per person and segment. Quality: person-seconds."""

    name = "covid"
    version = "1"
    knobs = (
        Knob("frame_rate", (1, 5, 10, 15, 30), 5, "Frames analysed per second of video, at most the video's own."),
        Knob("detect_every", (60, 30, 5, 1), 5, "The detector looks at each segment's first and every n-th frame."),
        Knob("tiles", ("1x1", "2x2"), "1x1", "The detector sees the whole frame, or four overlapping parts of it."),
    )
    row_schema = RowSchema(
        event_time_column="event_time",
        columns=(
            Column("event_time", ColumnType.TIMESTAMP, "When the person was first seen in the segment."),
            Column("track_id", ColumnType.INT64, "The person, unique within the stream while in view."),
            Column("last_seen", ColumnType.TIMESTAMP, "When the person was last seen in the segment."),
            Column("frames_seen", ColumnType.INT64, "In how many of the analysed frames."),
            Column("frames_analysed", ColumnType.INT64, "How many frames of the segment were analysed."),
            Column("confidence", ColumnType.FLOAT64, "Mean detection score, 0 to 1."),
            Column("x_metres", ColumnType.FLOAT64, "Where on the ground when last seen.", nullable=True),
            Column("y_metres", ColumnType.FLOAT64, "Where on the ground when last seen.", nullable=True),
            Column("nearest_metres", ColumnType.FLOAT64, "Least distance to another person.", nullable=True),
            Column("too_near", ColumnType.BOOL, "Whether that is less than the rule."),
            Column("seconds_near", ColumnType.FLOAT64, "For how long somebody was nearer than the rule."),
            Column("calibrated", ColumnType.BOOL, "Whether metres are measured for this camera, not guessed."),
        ),
    )

    def __init__(self, settings: CovidSettings | None = None) -> None:
        self._settings = covid_settings() if settings is None else settings
        self._planes = {name: one.plane() for name, one in self._settings.cameras.items()}

    def sampling(self, configuration: Configuration) -> Sampling:
        return _detector(configuration).sampling(float(configuration["frame_rate"]))

    def detect(self, frames: Frames, configuration: Configuration, models: ModelClient) -> Sequence[Detections]:
        every = int(configuration["detect_every"])
        found = _detector(configuration).run(frames_at(frames, every), models)
        return carry(frames, found, every)

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
        distances = self._distances(context, followed)
        return SegmentResult(
            rows=[
                self._row(context, one, distances[track_id], followed.frames_analysed)
                for track_id, one in followed.sightings.items()
            ],
            quality=followed.seconds(context, weighted=False),
            state=followed.state,
        )

    def _distances(self, context: SegmentContext, followed: Followed) -> Mapping[int, _Distances]:
        """Of every person, from where the feet are: the middle of the box's lower edge."""
        plane = self._planes.get(context.stream_id, STREET)
        positions = {
            track_id: plane.positions(
                np.array([((one.box[0] + one.box[2]) / 2, one.box[3]) for one in sighting.objects], dtype=np.float64)
            )
            for track_id, sighting in followed.sightings.items()
        }
        nearest = {track_id: np.full(len(found), np.inf) for track_id, found in positions.items()}
        present: dict[int, list[tuple[int, int]]] = {}
        for track_id, sighting in followed.sightings.items():
            for index, frame in enumerate(sighting.frames):
                present.setdefault(frame, []).append((track_id, index))
        for people in present.values():
            found = nearest_metres(np.array([positions[track_id][index] for track_id, index in people]))
            for (track_id, index), metres in zip(people, found, strict=True):
                nearest[track_id][index] = metres
        return {track_id: _Distances(positions[track_id], nearest[track_id]) for track_id in positions}

    def _row(self, context: SegmentContext, sighting: Sighting, distances: _Distances, frames_analysed: int) -> Row:
        near = distances.nearest < self._settings.distance_metres
        x, y = distances.positions[-1].tolist()
        return {
            "event_time": context.time + timedelta(seconds=sighting.times_seconds[0]),
            "track_id": sighting.objects[-1].track_id,
            "last_seen": context.time + timedelta(seconds=sighting.times_seconds[-1]),
            "frames_seen": len(sighting.objects),
            "frames_analysed": frames_analysed,
            "confidence": round(sighting.mean_score, 3),
            "x_metres": _finite(x),
            "y_metres": _finite(y),
            "nearest_metres": _finite(float(distances.nearest.min())),
            "too_near": bool(near.any()),
            "seconds_near": round(float(near.sum()) * context.duration_seconds / frames_analysed, 3),
            "calibrated": context.stream_id in self._planes,
        }


def _detector(configuration: Configuration) -> Detector:
    return Detector(
        model=_MODEL,
        wanted=("person",),
        tiling=Tiling.parse(str(configuration["tiles"]), _TILE_PIXELS),
        score_threshold=_DETECTION_SCORE,
        iou_threshold=_NMS_IOU,
    )


def _finite(metres: float) -> float | None:
    """To the centimetre, which is more than a box's lower edge tells."""
    return round(metres, 2) if np.isfinite(metres) else None
