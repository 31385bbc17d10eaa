"""How a street camera is named: `street:people?seed=3&density=6&light=night&seconds=60&fps=10`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, cast
from urllib.parse import parse_qsl

from skyscraper.errors import ConfigError

SCHEME = "street:"
Light = Literal["day", "dusk", "night", "curve"]
CrowdKind = Literal["steady", "spikes", "peaks"]
SCENES = ("people", "vehicles")
LIGHTS: tuple[Light, ...] = ("day", "dusk", "night", "curve")
CROWDS: tuple[CrowdKind, ...] = ("steady", "spikes", "peaks")
# More people than this hide each other on 768 x 576 pixels.
MAX_DENSITY = 40.0
MAX_CLIP_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StreetSpec:
    """A street camera. With `light=curve` density and light follow a seeded day, of which `density` is the peak."""

    scene: str = "people"
    seed: int = 0
    density: float = 4.0
    """People, or moving vehicles, in view at once, on average."""
    light: Light = "day"
    seconds: int = 60
    """Length of the clip that is looped."""
    fps: int = 10
    gop_seconds: float = 1.0
    start_hour: float = 0.0
    """With `light=curve` or a `crowd`: the hour of the day at which the clip begins."""
    time_scale: float = 1.0
    """With `light=curve` or a `crowd`: simulated seconds per second; 1440 shows a day in a minute."""
    crowd: CrowdKind = "steady"
    """`spikes` or `peaks`: `density` is the height of short spikes, or of long peaks, over a quiet street. They come at
    the same moments on every camera, whatever its seed."""

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "density": (0, MAX_DENSITY),
            "seconds": (1, MAX_CLIP_SECONDS),
            "fps": (1, 60),
            "gop_seconds": (0.1, 10),
            "start_hour": (0, 24),
            "time_scale": (0.001, 1e6),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"street camera: {name} is {value:g}, it must be from {low:g} to {high:g}")
        if self.scene not in SCENES:
            raise ConfigError(f"street camera: scene {self.scene!r} is not known; there are: {', '.join(SCENES)}")
        if self.crowd not in CROWDS:
            raise ConfigError(f"street camera: crowd {self.crowd!r} is not known; there are: {', '.join(CROWDS)}")
        if self.light not in LIGHTS:
            raise ConfigError(f"street camera: light {self.light!r} is not known; there are: {', '.join(LIGHTS)}")

    @classmethod
    def parse(cls, text: str) -> StreetSpec:
        """Raises ConfigError naming the part that cannot be used."""
        if not text.startswith(SCHEME):
            raise ConfigError(f"{text!r} is not a street camera: it must begin with {SCHEME}")
        scene, _, options = text.removeprefix(SCHEME).partition("?")
        known = {one.name: one.type for one in fields(cls) if one.name != "scene"}
        values: dict[str, object] = {}
        for name, value in parse_qsl(options, keep_blank_values=True):
            if name not in known:
                raise ConfigError(f"street camera: unknown option {name!r}; there are: {', '.join(known)}")
            if name in values:
                raise ConfigError(f"street camera: option {name} is given twice")
            values[name] = _value(name, str(known[name]), value)
        return cls(scene or "people", **cast("dict[str, Any]", values))


def _value(name: str, kind: str, text: str) -> object:
    if kind not in ("int", "float"):
        return text
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError as error:
        raise ConfigError(
            f"street camera: {name}={text!r} is not {'a whole number' if kind == 'int' else 'a number'}"
        ) from error
