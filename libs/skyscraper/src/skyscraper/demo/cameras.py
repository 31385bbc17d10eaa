"""The demo's cameras: streets that show a whole day in minutes, rendered once and kept in a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.demo.score import Truth
from skyscraper.media.street import StreetSpec, cached_clip, load_truth

# An object of which less is to be seen is not counted: the detector is not asked to guess.
_VISIBLE = 0.4
# People in view at the busiest moment of each camera's day.
_DENSITIES = (12, 8, 14, 6, 10, 16, 5, 9)
# As many as two cores of this year's CPUs can decode and detect on beside a broker.
_FRAMES_PER_SECOND = 5


@dataclass(frozen=True)
class Camera:
    stream_id: str
    source: str

    @property
    def scene(self) -> str:
        return f"up to {StreetSpec.parse(self.source).density:g} people"

    def stream(self, pipeline: str, configuration: Mapping[str, str], segments: int) -> dict[str, Any]:
        """Its entry in the publisher's configuration: so many segments, one day, then the end."""
        return {
            "id": self.stream_id,
            "source": self.source,
            "pipeline": pipeline,
            "configuration": dict(configuration),
            "max_segments": segments,
        }

    def truth(self) -> Truth:
        spec = StreetSpec.parse(self.source)
        frames = load_truth(cached_clip(spec).truth_path)
        counts = [
            sum(box.label == "person" and box.visibility >= _VISIBLE for box in frame.objects) for frame in frames
        ]
        times = np.array([frame.time_seconds for frame in frames])
        return Truth(times, np.array(counts, dtype=np.float64), float(spec.seconds))


def cameras(count: int, day_seconds: int) -> list[Camera]:
    """Every camera has people, rushes and a seed of its own; light follows the hour on all of them."""
    options = f"light=curve&time_scale={SECONDS_PER_DAY / day_seconds:g}&seconds={day_seconds}&fps={_FRAMES_PER_SECOND}"
    return [
        Camera(
            f"gate-{number}",
            f"street:people?seed={number}&density={_DENSITIES[(number - 1) % len(_DENSITIES)]}&{options}",
        )
        for number in range(1, count + 1)
    ]


def render(wanted: list[Camera], say: Callable[[str], None], *, threads: int) -> None:
    """Render what is not in the cache yet."""
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        # Encoder and OpenCV work outside the interpreter's lock.
        for _ in pool.map(lambda camera: cached_clip(StreetSpec.parse(camera.source)), wanted):
            done += 1
            say(f"rendering street cameras: {done} of {len(wanted)} (once) ...")
