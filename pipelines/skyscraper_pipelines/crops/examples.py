"""Labelled crops out of street cameras: rendered and encoded clips of dawns and dusks, with the simulator's truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.media.decode import decode_segment
from skyscraper.media.street import DayCurve, StreetSpec, TruthObject, cached_clip, load_truth
from skyscraper.media.street.sprites import PARKED
from skyscraper.models.overlap import intersection_over_union
from skyscraper.pipeline import Sampling

from skyscraper_pipelines.crops.cutting import LIGHTS, NOTHING, OBJECTS, cut

SCENES = ("people", "vehicles")
# An hour and a half around dawn and around dusk, shown in a minute: about as much night as day, and all light between.
_START_HOURS = (5.75, 17.75)
_SECONDS, _HOURS = 60, 1.5
# Frames of one clip: half a second apart, so that people have moved on.
_RENDERED_FPS, _USED_FPS = 4, 2
# In view at the fullest moment of the day; of the vehicles, more would hide each other.
_DENSITY = {"people": 20.0, "vehicles": 8.0}
# Below a quarter of the light of day it is night, above three quarters day: between, lamps would be switched on or off.
_NIGHT_BELOW, _DAY_FROM = 0.25, 0.75
# As the demo counts: of an object that is hidden more, a crop shows another.
_VISIBLE = 0.4
# A detector's boxes are off by about a tenth of an object's side.
_JITTER = 0.1
# A crop of nothing may touch an object so far, as a wrong box beside one does.
_TOUCHING = 0.1
# In turn, so that the classifier knows crops of every size that the pipeline's knob gives.
_FRAME_PIXELS = (224, 320, 416)


@dataclass(frozen=True)
class Examples:
    """`crops`: uint8 [n, 32, 32, 3]; `labels`: int64 [n], index into CLASSES."""

    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]


def examples(days: Sequence[int], *, twilights: int = len(_START_HOURS)) -> Examples:
    """All crops of these days (seeds of the cameras); their first `twilights` of dawn and dusk."""
    crops: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for day in days:
        for number, (scene, hour) in enumerate((scene, hour) for scene in SCENES for hour in _START_HOURS[:twilights]):
            found, told = _of_clip(_spec(scene, day, hour), _FRAME_PIXELS[(day + number) % len(_FRAME_PIXELS)])
            crops.append(found)
            labels.append(told)
    return Examples(np.concatenate(crops), np.concatenate(labels))


def light_name(light: float) -> str:
    """`light` from 0 (night) to 1 (day), as DayCurve gives it."""
    night, dusk, day = LIGHTS
    return night if light < _NIGHT_BELOW else day if light >= _DAY_FROM else dusk


def _spec(scene: str, day: int, start_hour: float) -> StreetSpec:
    return StreetSpec(
        scene=scene,
        seed=day,
        density=_DENSITY[scene],
        light="curve",
        seconds=_SECONDS,
        fps=_RENDERED_FPS,
        start_hour=start_hour,
        time_scale=_HOURS * 3600 / _SECONDS,
    )


def _of_clip(spec: StreetSpec, pixels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    clip = cached_clip(spec)
    truth = load_truth(clip.truth_path)
    frames = decode_segment(clip.video_path.read_bytes(), Sampling(_USED_FPS, pixels, pixels))
    curve, rng = DayCurve(spec.seed), np.random.default_rng([spec.seed, SCENES.index(spec.scene)])
    scale = np.array([pixels / frames.source_width, pixels / frames.source_height] * 2)
    crops: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for image, time_seconds in zip(frames.images, frames.times_seconds.tolist(), strict=True):
        here = truth[round(time_seconds * spec.fps)]
        light = light_name(curve.light(spec.start_hour + here.time_seconds * spec.time_scale / 3600))
        boxes, objects = _boxes(here.objects, frames.source_width, frames.source_height, rng)
        crops.append(cut(image, boxes * scale))
        labels += [OBJECTS.index(thing) * len(LIGHTS) + LIGHTS.index(light) for thing in objects]
    return np.concatenate(crops), np.array(labels, dtype=np.int64)


def _boxes(
    objects: Sequence[TruthObject], width: int, height: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], list[str]]:
    """Boxes [m, 4] as a detector might give them, and what is in them; for every second object one with nothing."""
    seen = [one for one in objects if one.visibility >= _VISIBLE]
    if not seen:
        return np.zeros((0, 4)), []
    exact = np.array([one.box for one in seen], dtype=np.float64)
    sides = np.tile(exact[:, 2:] - exact[:, :2], 2)
    near = exact + rng.uniform(-_JITTER, _JITTER, exact.shape) * sides
    # Parked vehicles stand in both scenes; only one scene's truth tells of them.
    occupied = np.array([*(one.box for one in objects), *PARKED], dtype=np.float32)
    shapes = sides[rng.integers(len(seen), size=(len(seen) + 1) // 2), :2]
    corners = rng.uniform(0, 1, shapes.shape) * (np.array([width, height]) - shapes)
    empty = np.concatenate([corners, corners + shapes], axis=1)
    free = intersection_over_union(empty.astype(np.float32), occupied).max(axis=1) <= _TOUCHING
    return np.concatenate([near, empty[free]]), [*(one.label for one in seen), *[NOTHING] * int(free.sum())]
