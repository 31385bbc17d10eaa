"""Cut the street camera's people out of OpenCV's sample clip vtest.avi (Apache-2.0), with our own detector.

    apt-get download opencv-doc && dpkg-deb -x opencv-doc_*.deb /tmp/opencv-doc
    find /tmp/opencv-doc -name 'vtest.avi*'
    uv run python tools/cut_street_sprites.py PATH/TO/vtest.avi

Each person is detected in every frame (nanodet-g at 608 pixels), followed (ByteTrack), and cut from the median
background by difference. Only stretches are kept in which the person is alone: whole, apart from others, moving
smoothly, with a mask that fits the box. The clip's own ground truth by others is not used.

No vehicle moves in the clip. For the vehicle scene its parked van is cut out by hand-set bounds (GrabCut) and driven
away along the road: real pixels, simulated path, speed and paint.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from skyscraper.media.street.sprites import Sprite, asset_path, write_asset
from skyscraper.models.detections import select
from skyscraper.models.repository import default_repository
from skyscraper.pipeline import Detections
from skyscraper.track import Tracker

VTEST_SHA256 = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
_SIZE = 608
_PERSON = 0
# Kept around the detector's box: it cuts feet and hands off now and then.
_MARGIN_PIXELS = 6
_MINIMUM_FRAMES = 20
_LARGEST_STEP_PIXELS = 14
# A standing person fills about half of its box; much less is a torn mask, much more is somebody else too.
_FILLED = (0.25, 0.85)
# The parked van, and where its feet (the middle of its lower edge) begin and end when it drives.
_VAN = (651, 41, 720, 102)
_ROAD = ((352.0, 305.0), (716.0, 130.0))
_HORIZON = -95.0


@dataclass
class Sighting:
    frame: int
    box: tuple[int, int, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    arguments = parser.parse_args()
    digest = hashlib.sha256(arguments.clip.read_bytes()).hexdigest()
    if digest != VTEST_SHA256:
        parser.error(f"{arguments.clip} is not the vtest.avi this script knows (SHA-256 {digest})")
    with av.open(str(arguments.clip)) as container:
        frames = [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in container.decode(video=0)]
    background = np.median(np.stack(frames[::9]), axis=0).astype(np.uint8)
    tracks = follow(frames)
    sprites = [sprite for sightings in tracks for sprite in cut(sightings, frames, background)]
    write_asset(asset_path("people"), background, sprites)
    write_asset(asset_path("vehicles"), None, drive(background))
    for scene in ("people", "vehicles"):
        print(f"{asset_path(scene)}: {asset_path(scene).stat().st_size / 1e6:.1f} MB")


def follow(frames: list[NDArray[np.uint8]]) -> list[list[Sighting]]:
    """Every person's boxes over time, less those that touch another person's."""
    session = onnxruntime.InferenceSession(str(default_repository() / "nanodet-g" / "1" / "model.onnx"))
    tracker = Tracker(activation_score=0.45, lost_seconds=1.0, minimum_iou=0.2)
    tracks: dict[int, list[Sighting]] = {}
    height, width, _ = frames[0].shape
    scale = np.array([width / _SIZE, height / _SIZE] * 2, dtype=np.float32)
    for number, frame in enumerate(frames):
        image = cv2.cvtColor(cv2.resize(frame, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        boxes, scores, labels = (output[0] for output in session.run(None, {"images": image[None]}))
        person = labels == _PERSON
        found = select(boxes[person], scores[person], labels[person], score_threshold=0.3, iou_threshold=0.5)
        seen = Detections(found.boxes * scale, found.scores, found.labels)
        objects = tracker.update((number + 1) / 10, seen)
        for tracked in objects:
            others = [other for other in seen.boxes if not np.allclose(other, tracked.box, atol=1)]
            if any(_touch(tracked.box, other) for other in others):
                continue
            box = _padded(tracked.box, width, height)
            if box is not None:
                tracks.setdefault(tracked.track_id, []).append(Sighting(number, box))
    return [sightings for _, sightings in sorted(tracks.items())]


def cut(sightings: list[Sighting], frames: list[NDArray[np.uint8]], background: NDArray[np.uint8]) -> list[Sprite]:
    """The stretches of consecutive good frames, as sprites."""
    sprites: list[Sprite] = []
    pictures: list[NDArray[np.uint8]] = []
    boxes: list[tuple[int, int, int, int]] = []
    last: Sighting | None = None

    def finish() -> None:
        if len(boxes) >= _MINIMUM_FRAMES:
            sprites.append(Sprite(tuple(boxes), tuple(pictures)))
        boxes.clear()
        pictures.clear()

    for sighting in sightings:
        picture = _picture(frames[sighting.frame], background, sighting.box)
        if last is not None and (
            sighting.frame != last.frame + 1 or _step(last.box, sighting.box) > _LARGEST_STEP_PIXELS
        ):
            finish()
        last = sighting
        if picture is None:
            finish()
            continue
        boxes.append(sighting.box)
        pictures.append(picture)
    finish()
    return sprites


def drive(background: NDArray[np.uint8]) -> list[Sprite]:
    """The parked van on its way up the road, at three speeds and in four paints.

    The van is seen from behind, so it drives away: its feet go from the lower left to the place where it parks. At an
    even speed on flat ground 1 / (y - horizon) grows evenly with time, and size goes with y - horizon.
    """
    x_min, y_min, x_max, y_max = _VAN
    mask = np.full(background.shape[:2], cv2.GC_BGD, np.uint8)
    mask[y_min:y_max, x_min:x_max] = cv2.GC_PR_FGD
    mask[y_min + 10 : y_max - 8, x_min + 6 : x_max - 8] = cv2.GC_FGD
    nowhere = (0, 0, 1, 1)
    cv2.grabCut(background, mask, nowhere, np.zeros((1, 65)), np.zeros((1, 65)), 8, cv2.GC_INIT_WITH_MASK)
    opaque = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)[y_min:y_max, x_min:x_max] * 255
    van = background[y_min:y_max, x_min:x_max]
    sprites = []
    for frames in (36, 52, 74):
        for paint in ((1.0, 1.0, 1.0), (1.0, 0.72, 0.55), (0.55, 0.6, 1.0), (0.55, 0.55, 0.55)):
            painted = np.clip(van * np.array(paint), 0, 255).astype(np.uint8)
            boxes, pictures = [], []
            for share in np.linspace(0, 1, frames):
                feet_y = _HORIZON + 1 / ((1 - share) / (_ROAD[0][1] - _HORIZON) + share / (_ROAD[1][1] - _HORIZON))
                along = (feet_y - _ROAD[0][1]) / (_ROAD[1][1] - _ROAD[0][1])
                feet_x = _ROAD[0][0] + along * (_ROAD[1][0] - _ROAD[0][0])
                scale = (feet_y - _HORIZON) / (y_max - _HORIZON)
                size = (round(van.shape[1] * scale), round(van.shape[0] * scale))
                alpha = cv2.GaussianBlur(cv2.resize(opaque, size), (3, 3), 0.8)
                picture = np.dstack([cv2.resize(painted, size, interpolation=cv2.INTER_CUBIC), alpha])
                left, top = round(feet_x - size[0] / 2), round(feet_y - size[1])
                boxes.append((left, top, left + size[0], top + size[1]))
                pictures.append(picture.astype(np.uint8))
            sprites.append(Sprite(tuple(boxes), tuple(pictures)))
    return sprites


def _picture(
    frame: NDArray[np.uint8], background: NDArray[np.uint8], box: tuple[int, int, int, int]
) -> NDArray[np.uint8] | None:
    """The box's pixels with an alpha mask, or None where the mask does not fit a person."""
    x_min, y_min, x_max, y_max = box
    pixels, behind = frame[y_min:y_max, x_min:x_max], background[y_min:y_max, x_min:x_max]
    difference = cv2.GaussianBlur(cv2.absdiff(pixels, behind).max(axis=2), (3, 3), 0)
    core = cv2.morphologyEx((difference > 26).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(core)
    if count < 2:
        return None
    # Head and body may be torn apart by a background of the same colour: keep every part of some size.
    keep = [
        index for index in range(1, count) if stats[index, cv2.CC_STAT_AREA] > 0.08 * stats[1:, cv2.CC_STAT_AREA].max()
    ]
    mask = np.isin(labels, keep).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, contours, -1, 1, cv2.FILLED)
    rows = np.flatnonzero(mask.any(axis=1))
    filled = float(mask.mean())
    if not _FILLED[0] <= filled <= _FILLED[1] or rows[-1] - rows[0] < 0.75 * mask.shape[0]:
        return None
    # Touching the cut's sides means that the person goes on beyond it.
    if mask[:, [0, -1]].mean() > 0.05:
        return None
    alpha = cv2.GaussianBlur(mask * 255, (3, 3), 0.8)
    # Colour under the soft edge comes from the person, not from the old background, or a halo would show.
    return np.dstack([pixels, alpha]).astype(np.uint8)


def _padded(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int] | None:
    x_min, y_min = int(box[0]) - _MARGIN_PIXELS, int(box[1]) - _MARGIN_PIXELS
    x_max, y_max = int(box[2]) + _MARGIN_PIXELS + 1, int(box[3]) + _MARGIN_PIXELS + 1
    whole = x_min >= 0 and y_min >= 0 and x_max <= width and y_max <= height
    return (x_min, y_min, x_max, y_max) if whole else None


def _touch(a: tuple[float, float, float, float], b: NDArray[np.float32]) -> bool:
    gap = 2
    return bool(a[0] - gap < b[2] and b[0] - gap < a[2] and a[1] - gap < b[3] and b[1] - gap < a[3])


def _step(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Movement of the feet: the box's height breathes with the gait."""
    return float(np.hypot((a[0] + a[2] - b[0] - b[2]) / 2, a[3] - b[3]))


if __name__ == "__main__":
    main()
