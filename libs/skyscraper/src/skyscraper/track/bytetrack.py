"""ByteTrack (Zhang et al., ECCV 2022) from the `trackers` library, resumable from bytes.

The library keeps a stream's tracks in Python objects. A decoder must be able to go on with a stream that another
process began, so the few numbers that a track consists of are written out after every segment and read back before
the next; what a take-over computes is then what the first process would have computed, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv
from google.protobuf.message import DecodeError
from trackers import ByteTrackTracker
from trackers.core.bytetrack.tracklet import ByteTrackTracklet

from skyscraper.errors import SkyscraperError
from skyscraper.pipeline.pipeline import Detections
from skyscraper.v1 import tracker_pb2

_STATE_DIMENSIONS = 8


class BadTrackerState(SkyscraperError):
    """Saved tracker state that cannot be read."""


@dataclass(frozen=True)
class TrackedObject:
    """One object in one frame. `box` is x_min, y_min, x_max, y_max in source pixels."""

    track_id: int
    label: int
    score: float
    box: tuple[float, float, float, float]


class Tracker:
    """Follows the objects of one stream from frame to frame.

    Thresholds: detections at or above `activation_score` may begin a track; weaker ones (down to what the pipeline
    passes in) only continue one, which is ByteTrack's point. `lost_seconds` is how long an object may stay unseen
    before its track ends.
    """

    def __init__(self, *, activation_score: float, lost_seconds: float, minimum_iou: float) -> None:
        self._tracker = ByteTrackTracker(
            # The library counts the buffer in frames of a nominal 30 fps clock; with timestamps given, only the
            # seconds it derives from it (buffer / 30) are used.
            lost_track_buffer=round(lost_seconds * 30),
            frame_rate=30.0,
            track_activation_threshold=activation_score,
            high_conf_det_threshold=activation_score,
            minimum_iou_threshold=minimum_iou,
            minimum_consecutive_frames=2,
        )

    def restore(self, state: bytes) -> None:
        """Go on from `snapshot()`'s bytes. Raises BadTrackerState."""
        try:
            message = tracker_pb2.TrackerState.FromString(state)
        except DecodeError as error:
            raise BadTrackerState(f"the tracker's saved state ({len(state)} bytes) cannot be read: {error}") from error
        self._tracker.tracks = [_tracklet(track) for track in message.tracks]
        self._tracker._next_track_id = message.next_track_id  # noqa: SLF001 - the library has no public way
        last = message.last_frame_seconds if message.HasField("last_frame_seconds") else None
        self._tracker._last_timestamp = last  # noqa: SLF001 - the library has no public way

    def snapshot(self) -> bytes:
        message = tracker_pb2.TrackerState(
            next_track_id=self._tracker._next_track_id,  # noqa: SLF001 - the library has no public way
            last_frame_seconds=self._tracker._last_timestamp,  # noqa: SLF001 - the library has no public way
            tracks=[_track(tracklet) for tracklet in self._tracker.tracks],
        )
        return message.SerializeToString(deterministic=True)

    def update(self, time_seconds: float, detections: Detections) -> Sequence[TrackedObject]:
        """The confirmed objects of the next frame, ordered by track id. `time_seconds` must increase.

        A frame that is not later than the one before gives nothing and changes nothing.
        """
        last = self._tracker._last_timestamp  # noqa: SLF001 - the library only warns; a stream may restart its clock
        if last is not None and time_seconds <= last:
            return []
        found = self._tracker.update(
            sv.Detections(
                xyxy=detections.boxes.astype(np.float64).reshape(-1, 4),
                confidence=detections.scores.astype(np.float64),
                class_id=detections.labels.astype(int),
            ),
            timestamp=time_seconds,
        )
        ids, labels, scores = found.tracker_id, found.class_id, found.confidence
        if ids is None or labels is None or scores is None:
            return []
        objects = [
            TrackedObject(
                track_id=int(ids[index]),
                label=int(labels[index]),
                score=float(scores[index]),
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            )
            for index, box in enumerate(found.xyxy)
            if ids[index] >= 0
        ]
        return sorted(objects, key=lambda tracked: tracked.track_id)


def _track(tracklet: ByteTrackTracklet) -> tracker_pb2.Track:
    state = tracklet.state_estimator.get_state()
    return tracker_pb2.Track(
        track_id=tracklet.tracker_id,
        age_frames=tracklet.age,
        consecutive_updates=tracklet.number_of_successful_consecutive_updates,
        frames_since_update=tracklet.time_since_update,
        seconds_since_update=tracklet.time_since_update_seconds,
        mean=state["state"].ravel().tolist(),
        covariance=state["state_covariance"].ravel().tolist(),
    )


def _tracklet(track: tracker_pb2.Track) -> ByteTrackTracklet:
    if len(track.mean) != _STATE_DIMENSIONS or len(track.covariance) != _STATE_DIMENSIONS**2:
        raise BadTrackerState(
            f"track {track.track_id} has {len(track.mean)} state values and {len(track.covariance)} covariances; "
            f"wanted {_STATE_DIMENSIONS} and {_STATE_DIMENSIONS**2}"
        )
    mean = np.array(track.mean, dtype=np.float64)
    tracklet = ByteTrackTracklet(mean[:4])
    # The rest of the filter (transition, noise) is set anew from constants before every prediction.
    state = tracklet.state_estimator.get_state()
    state["state"] = mean.reshape(_STATE_DIMENSIONS, 1)
    state["state_covariance"] = np.array(track.covariance).reshape(_STATE_DIMENSIONS, _STATE_DIMENSIONS)
    tracklet.state_estimator.set_state(state)
    tracklet.tracker_id = track.track_id
    tracklet.age = track.age_frames
    tracklet.number_of_successful_consecutive_updates = track.consecutive_updates
    tracklet.time_since_update = track.frames_since_update
    tracklet.time_since_update_seconds = track.seconds_since_update
    return tracklet
