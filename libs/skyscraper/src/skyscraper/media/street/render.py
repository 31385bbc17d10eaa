"""Drawing the street, frame by frame. A frame is a function of the specification and its number alone.

Rendering must cost little beside decoding and detecting it: sprites are blended as small uint8 patches onto a copy of
the background, light is one table look-up over the frame, and noise is a shifted tile drawn once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from skyscraper.media.street.crowd import CrowdCurve
from skyscraper.media.street.day import DayCurve
from skyscraper.media.street.spec import StreetSpec
from skyscraper.media.street.sprites import Material, Sprite, load_material

# People begin and end their walk somewhere in view, where their sprite was cut; they fade over so many frames.
_FADE_FRAMES = 4
# An offset of a path that keeps feet on the pavement and the perspective believable.
_SHIFT_X_PIXELS, _SHIFT_Y_PIXELS = 24, 6
_OPAQUE = 128
# Gain, gamma and noise (standard deviation in grey levels) of the three lights; between them they are mixed.
_DAY, _DUSK, _NIGHT = (1.0, 1.0, 0.0), (0.5, 1.15, 4.0), (0.2, 1.35, 6.0)
_DUSK_LIGHT = 0.5
_LIGHT_STEPS = 32


@dataclass(frozen=True)
class TruthObject:
    """An object in a frame. `box` holds its opaque pixels tightly, clipped to the frame; `visibility` is the share of
    them that no nearer object hides."""

    id: int
    label: str
    box: tuple[float, float, float, float]
    visibility: float


@dataclass(frozen=True)
class FrameTruth:
    number: int
    time_seconds: float
    objects: tuple[TruthObject, ...]


@dataclass(frozen=True)
class _Walk:
    """One person's, or vehicle's, way through the scene."""

    id: int
    sprite: Sprite
    first_frame: int
    shift: tuple[int, int]


class Street:
    """The camera of a specification. With `period_frames` its frames repeat without a seam: people who are in view at
    the end are the ones who are in view at the beginning."""

    def __init__(self, spec: StreetSpec, *, period_frames: int | None = None, material: Material | None = None) -> None:
        self._spec = spec
        self._material = material or load_material(spec.scene)
        self._period = period_frames
        self._curve = DayCurve(spec.seed) if spec.light == "curve" else None
        self._gathering = None if spec.crowd == "steady" else CrowdCurve(spec.crowd)
        self._longest = max(len(sprite) for sprite in self._material.sprites)
        self._mean_frames = float(np.mean([len(sprite) for sprite in self._material.sprites]))
        self._noise = _noise_tiles(self._material.background.shape[0], self._material.background.shape[1])
        self._births = functools.lru_cache(maxsize=4 * self._longest)(self._births_at)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width, _ = self._material.background.shape
        return width, height

    def frame(self, number: int) -> tuple[NDArray[np.uint8], FrameTruth]:
        """uint8 [height, width, 3] in blue, green, red, and what is in it."""
        image = self._material.background.copy()
        owners = np.zeros(image.shape[:2], dtype=np.uint8)
        walks = self._walks(number)
        drawn = [_draw(image, owners, index, walk, number - walk.first_frame) for index, walk in enumerate(walks, 1)]
        objects = tuple(
            TruthObject(walk.id, self._material.label, box, _visible_share(owners, index, box, area))
            for index, (walk, found) in enumerate(zip(walks, drawn, strict=True), 1)
            if found is not None
            for box, area in [found]
        )
        self._light(image, number)
        parked = tuple(
            TruthObject(-1 - index, self._material.label, box, _visible_share(owners, 0, box, _area(box)))
            for index, box in enumerate(self._material.parked)
        )
        return image, FrameTruth(number, number / self._spec.fps, (*parked, *objects))

    def _walks(self, number: int) -> list[_Walk]:
        """Everybody in view, farthest first: who stands lower in the picture is nearer."""
        walks = [
            walk
            for first in range(number - self._longest + 1, number + 1)
            for walk in self._births(first)
            if number - walk.first_frame < len(walk.sprite)
        ]
        return sorted(walks, key=lambda walk: (_feet(walk, number), walk.id))

    def _births_at(self, first_frame: int) -> tuple[_Walk, ...]:
        """Who begins to walk in this frame: a Poisson number with the density of the hour."""
        moment = first_frame if self._period is None else first_frame % self._period
        if moment < 0:
            # An endless camera begins with an empty memory, not with an empty street.
            moment += 1 << 40
        rng = np.random.default_rng([self._spec.seed, moment])
        expected = self._spec.density * self._crowd(moment) / self._mean_frames
        walks = []
        for index in range(int(rng.poisson(expected))):
            sprite = self._material.sprites[int(rng.integers(len(self._material.sprites)))]
            shift = (
                int(rng.integers(-_SHIFT_X_PIXELS, _SHIFT_X_PIXELS + 1)),
                int(rng.integers(-_SHIFT_Y_PIXELS, _SHIFT_Y_PIXELS + 1)),
            )
            walks.append(_Walk(moment * 64 + index, sprite, first_frame, shift))
        return tuple(walks)

    def _crowd(self, moment: int) -> float:
        """Share of the density, 0 to 1."""
        by_day = 1.0 if self._curve is None else self._curve.crowd(self._hour(moment))
        return by_day if self._gathering is None else by_day * self._gathering.crowd(self._hour(moment))

    def _hour(self, number: int) -> float:
        return self._spec.start_hour + number / self._spec.fps * self._spec.time_scale / 3600

    def _light(self, image: NDArray[np.uint8], number: int) -> None:
        fixed = {"day": 1.0, "dusk": _DUSK_LIGHT, "night": 0.0}
        moment = number if self._period is None else number % self._period
        light = fixed[self._spec.light] if self._curve is None else self._curve.light(self._hour(moment))
        table, noise = _light_table(round(light * _LIGHT_STEPS))
        if table is not None:
            cv2.LUT(image, table, dst=image)
        if noise:
            rng = np.random.default_rng([self._spec.seed, moment, 7])
            height, width, _ = image.shape
            top, left = (int(rng.integers(extent)) for extent in (height, width))
            brighter, darker = self._noise[noise]
            cv2.add(image, brighter[top : top + height, left : left + width], dst=image)
            cv2.subtract(image, darker[top : top + height, left : left + width], dst=image)


def _draw(
    image: NDArray[np.uint8], owners: NDArray[np.uint8], index: int, walk: _Walk, age: int
) -> tuple[tuple[float, float, float, float], int] | None:
    """Blend one person in; returns the box and number of their opaque pixels, None while they fade or are outside."""
    picture, box = walk.sprite.pictures[age], walk.sprite.boxes[age]
    height, width = image.shape[:2]
    left, top = box[0] + walk.shift[0], box[1] + walk.shift[1]
    x_min, y_min, x_max, y_max = (
        max(left, 0),
        max(top, 0),
        min(left + picture.shape[1], width),
        min(top + picture.shape[0], height),
    )
    if x_min >= x_max or y_min >= y_max:
        return None
    picture = picture[y_min - top : y_max - top, x_min - left : x_max - left]
    fade = min(1.0, (age + 1) / _FADE_FRAMES, (len(walk.sprite) - age) / _FADE_FRAMES)
    alpha = picture[..., 3].astype(np.uint16)
    if fade < 1:
        alpha = (alpha * fade).astype(np.uint16)
    patch = image[y_min:y_max, x_min:x_max]
    weight = alpha[..., None]
    patch[:] = (picture[..., :3] * weight + patch * (255 - weight) + 127) // 255
    if fade <= 0.5:
        return None
    opaque = picture[..., 3] >= _OPAQUE
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    if not len(rows):
        return None
    owners[y_min:y_max, x_min:x_max][opaque] = index
    tight = (x_min + columns[0], y_min + rows[0], x_min + columns[-1] + 1, y_min + rows[-1] + 1)
    return (float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3])), int(opaque.sum())


def _visible_share(owners: NDArray[np.uint8], index: int, box: tuple[float, float, float, float], area: int) -> float:
    x_min, y_min, x_max, y_max = (int(edge) for edge in box)
    return float(np.count_nonzero(owners[y_min:y_max, x_min:x_max] == index)) / area


def _area(box: tuple[float, float, float, float]) -> int:
    return int((box[2] - box[0]) * (box[3] - box[1]))


def _feet(walk: _Walk, number: int) -> int:
    return walk.sprite.boxes[number - walk.first_frame][3] + walk.shift[1]


@functools.cache
def _light_table(step: int) -> tuple[NDArray[np.uint8] | None, int]:
    """Look-up table and noise level of a light between night (0) and day (_LIGHT_STEPS)."""
    light = step / _LIGHT_STEPS
    (low, high), share = (
        ((_NIGHT, _DUSK), light / _DUSK_LIGHT)
        if light <= _DUSK_LIGHT
        else ((_DUSK, _DAY), (light - _DUSK_LIGHT) / (1 - _DUSK_LIGHT))
    )
    gain, gamma, noise = (a + (b - a) * share for a, b in zip(low, high, strict=True))
    if light >= 1:
        return None, 0
    levels = np.arange(256) / 255
    return np.round(255 * gain * levels**gamma).astype(np.uint8), round(noise)


@functools.cache
def _noise_tiles(height: int, width: int) -> Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """By noise level: what to add and what to subtract, twice the frame's size so that any shift fits."""
    shape = (2 * height, 2 * width, 3)
    normal = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    tiles = []
    for level in range(round(_NIGHT[2]) + 1):
        scaled = np.round(normal * level)
        tiles.append((np.clip(scaled, 0, 255).astype(np.uint8), np.clip(-scaled, 0, 255).astype(np.uint8)))
    return tiles
