"""Following the objects of one segment: what pipelines' stateful step has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from skyscraper.pipeline.pipeline import Detections, Frames, SegmentContext
from skyscraper.track.bytetrack import TrackedObject, Tracker


@dataclass
class Sighting:
    """What was seen of one object within a segment: itself, when, and in which of the frames."""

    objects: list[TrackedObject] = field(default_factory=list)
    times_seconds: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    @property
    def mean_score(self) -> float:
        return sum(tracked.score for tracked in self.objects) / len(self.objects)


@dataclass(frozen=True)
class Followed:
    """`sightings` by track id, ascending; `state` goes into the stream's next segment."""

    sightings: dict[int, Sighting]
    frames_analysed: int
    state: bytes

    def seconds(self, context: SegmentContext, *, weighted: bool) -> float:
        """Object-seconds: each sighting stands for its frame's share of the segment. `weighted` with the detector's
        certainty."""
        if not self.frames_analysed:
            return 0.0
        seen = sum(tracked.score if weighted else 1.0 for one in self.sightings.values() for tracked in one.objects)
        return seen * context.duration_seconds / self.frames_analysed


def follow(
    tracker: Tracker, state: bytes | None, context: SegmentContext, frames: Frames, detections: Sequence[Detections]
) -> Followed:
    """Go on from the last segment's state, which is None at the start of a stream. Raises BadTrackerState."""
    if state is not None:
        tracker.restore(state)
    start_seconds = context.time.timestamp()
    sightings: dict[int, Sighting] = {}
    for frame, (time_seconds, found) in enumerate(zip(frames.times_seconds.tolist(), detections, strict=True)):
        for tracked in tracker.update(start_seconds + time_seconds, found):
            sighting = sightings.setdefault(tracked.track_id, Sighting())
            sighting.objects.append(tracked)
            sighting.times_seconds.append(time_seconds)
            sighting.frames.append(frame)
    return Followed(dict(sorted(sightings.items())), len(frames.times_seconds), tracker.snapshot())
