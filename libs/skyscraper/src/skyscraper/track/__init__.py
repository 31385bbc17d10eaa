"""Multi-object tracking by the `trackers` library, with its state made portable between processes."""

from skyscraper.track.bytetrack import TrackedObject, Tracker

__all__ = ["TrackedObject", "Tracker"]
