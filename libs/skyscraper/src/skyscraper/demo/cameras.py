"""The demo's cameras: streets of different density and light, rendered once and looped from a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyscraper.demo.score import Truth
from skyscraper.media.street import StreetSpec, cached_clip, load_truth

# Long enough for people to come and go, short enough to render while the services start.
_CLIP_SECONDS = 24
# An object of which less is to be seen is not counted: the detector is not asked to guess.
_VISIBLE = 0.4

CAMERAS = tuple(
    (f"gate-{number}", f"street:people?seed={number}&density={density}&light={light}&seconds={_CLIP_SECONDS}")
    for number, (density, light) in enumerate(
        [(3, "day"), (7, "day"), (5, "dusk"), (2, "night"), (9, "day"), (4, "dusk")] * 6, start=1
    )
)[:32]


@dataclass(frozen=True)
class Camera:
    stream_id: str
    source: str

    @property
    def scene(self) -> str:
        spec = StreetSpec.parse(self.source)
        return f"{spec.density:g} people, {spec.light}"

    def stream(self, pipeline: str, configuration: Mapping[str, str]) -> dict[str, Any]:
        """Its entry in the publisher's configuration."""
        return {
            "id": self.stream_id,
            "source": self.source,
            "pipeline": pipeline,
            "configuration": dict(configuration),
            "loop": True,
        }

    def truth(self) -> Truth:
        frames = load_truth(cached_clip(StreetSpec.parse(self.source)).truth_path)
        counts = [
            sum(box.label == "person" and box.visibility >= _VISIBLE for box in frame.objects) for frame in frames
        ]
        times = np.array([frame.time_seconds for frame in frames])
        return Truth(times, np.array(counts, dtype=np.float64), float(_CLIP_SECONDS))


def render_cameras(wanted: Sequence[tuple[str, str]], say: Callable[[str], None]) -> list[Camera]:
    """Render what is not in the cache yet."""
    cameras = []
    for number, (stream_id, source) in enumerate(wanted, start=1):
        say(f"rendering street camera {number} of {len(wanted)} (once) ...")
        cached_clip(StreetSpec.parse(source))
        cameras.append(Camera(stream_id, source))
    return cameras
