"""The street camera's material: an empty street, and people and vehicles cut from it, in files beside this module."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_ASSETS = Path(__file__).parent / "assets"
BACKGROUND = "background.webp"
LABELS = {"people": "person", "vehicles": "vehicle"}
# The two that are parked on the street all the time: they count as vehicles in view.
PARKED = ((653.0, 43.0, 719.0, 101.0), (732.0, 38.0, 768.0, 96.0))
# Visually lossless for crops of 40 x 90 pixels, at a tenth of PNG's size.
_WEBP_QUALITY = 85


@dataclass(frozen=True)
class Sprite:
    """One person for some time: where it was in each frame, and its pixels there.

    `boxes`: x_min, y_min, x_max, y_max per frame; `pictures`: uint8 [h, w, 4] per frame, blue, green, red, alpha.
    """

    boxes: tuple[tuple[int, int, int, int], ...]
    pictures: tuple[NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Material:
    """What a scene is made of. `parked` are objects of the background itself, as boxes."""

    background: NDArray[np.uint8]
    """uint8 [576, 768, 3], blue, green, red."""
    sprites: tuple[Sprite, ...]
    label: str
    parked: tuple[tuple[float, float, float, float], ...] = ()


def asset_path(scene: str) -> Path:
    return _ASSETS / f"{scene}.zip"


@functools.cache
def load_material(scene: str) -> Material:
    with zipfile.ZipFile(asset_path("people")) as archive:
        background = _decode(archive.read(BACKGROUND), cv2.IMREAD_COLOR)
    with zipfile.ZipFile(asset_path(scene)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".boxes.npy"))
        sprites = tuple(_read_sprite(archive, name.removesuffix(".boxes.npy")) for name in names)
    return Material(background, sprites, LABELS[scene], PARKED if scene == "vehicles" else ())


def write_asset(path: Path, background: NDArray[np.uint8] | None, sprites: Sequence[Sprite]) -> None:
    """One strip of pictures per sprite. Entries carry no dates, so equal material gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        if background is not None:
            _add(archive, BACKGROUND, _encode(background))
        for number, sprite in enumerate(sprites):
            height = max(picture.shape[0] for picture in sprite.pictures)
            strip = np.concatenate(
                [np.pad(one, ((0, height - one.shape[0]), (0, 0), (0, 0))) for one in sprite.pictures], axis=1
            )
            _add(archive, f"{number:03}.webp", _encode(strip))
            _add(archive, f"{number:03}.boxes.npy", _npy(np.array(sprite.boxes, dtype=np.int16)))


def _read_sprite(archive: zipfile.ZipFile, name: str) -> Sprite:
    with archive.open(f"{name}.boxes.npy") as file:
        boxes = np.load(file, allow_pickle=False)
    strip = _decode(archive.read(f"{name}.webp"), cv2.IMREAD_UNCHANGED)
    edges = np.concatenate([[0], np.cumsum(boxes[:, 2] - boxes[:, 0])])
    pictures = tuple(
        np.ascontiguousarray(strip[: box[3] - box[1], left:right])
        for box, left, right in zip(boxes, edges[:-1], edges[1:], strict=True)
    )
    x_min, y_min, x_max, y_max = boxes.T.tolist()
    return Sprite(tuple(zip(x_min, y_min, x_max, y_max, strict=True)), pictures)


def _encode(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])[1].tobytes()


def _decode(data: bytes, mode: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), mode), dtype=np.uint8)


def _npy(values: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
