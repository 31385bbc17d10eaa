"""Multi-object tracking by the `trackers` library, with its state made portable between processes."""

from skyscraper.track.bytetrack import TrackedObject, Tracker
from skyscraper.track.sightings import Followed, Sighting, follow

__all__ = ["Followed", "Sighting", "TrackedObject", "Tracker", "follow"]
