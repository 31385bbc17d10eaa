"""A street camera's clip: rendered and encoded once, kept with its ground truth, looped by whoever needs a camera."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from skyscraper.media.street.render import FrameTruth, Street, TruthObject
from skyscraper.media.street.spec import StreetSpec
from skyscraper.media.street.sprites import asset_path
from skyscraper.paths import cache_dir

# Raise it when rendering changes, so that no clip of an older look is taken from the cache.
_RENDERER = 1
# What a camera's own encoder is like: fast, no frames that wait for later ones.
ENCODER = {"preset": "superfast", "tune": "zerolatency", "crf": "26"}


@dataclass(frozen=True)
class Clip:
    video_path: Path
    """MPEG-TS, H.264, closed GOPs."""
    truth_path: Path
    """One JSON object a line, for `load_truth`."""


def cached_clip(spec: StreetSpec) -> Clip:
    """The clip, rendered at the first call. Safe to call from several processes at once."""
    folder = cache_dir() / "street"
    clip = _paths(folder, spec)
    if clip.video_path.exists() and clip.truth_path.exists():
        return clip
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{clip.video_path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (clip.video_path.exists() and clip.truth_path.exists()):
            _render(spec, clip)
    return clip


def load_truth(path: Path) -> list[FrameTruth]:
    frames = []
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        objects = tuple(TruthObject(o["id"], o["label"], tuple(o["box"]), o["visibility"]) for o in entry["objects"])
        frames.append(FrameTruth(entry["number"], entry["time_seconds"], objects))
    return frames


def _render(spec: StreetSpec, clip: Clip) -> None:
    count = spec.seconds * spec.fps
    street = Street(spec, period_frames=count)
    width, height = street.size
    partial = clip.video_path.with_suffix(f".{os.getpid()}.part")
    truth: list[str] = []
    with av.open(str(partial), "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264",
            rate=spec.fps,
            options={**ENCODER, "g": str(round(spec.gop_seconds * spec.fps)), "sc_threshold": "0"},
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(count):
            image, frame_truth = street.frame(number)
            planes = av.VideoFrame.from_ndarray(
                np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8), "yuv420p"
            )
            planes.pts = number
            container.mux(stream.encode(planes))
            truth.append(json.dumps(asdict(frame_truth)))
        container.mux(stream.encode(None))
    notes = clip.truth_path.with_suffix(f".{os.getpid()}.part")
    notes.write_text("\n".join(truth) + "\n", encoding="utf-8")
    notes.rename(clip.truth_path)
    # Last: a clip that is there is whole, its truth included.
    partial.rename(clip.video_path)


def _paths(folder: Path, spec: StreetSpec) -> Clip:
    described = json.dumps([_RENDERER, ENCODER, asdict(spec), _asset_digest(spec.scene)], sort_keys=True)
    name = f"{spec.scene}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    return Clip(folder / f"{name}.ts", folder / f"{name}.truth.jsonl")


def _asset_digest(scene: str) -> str:
    files = (asset_path("people"), asset_path(scene))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
