"""What a look at a segment's first frames costs, and what it tells.

    uv run python bench/look.py [--json]

Cost: CPU time of `look` on segments of 2 s of the street camera by night (noise is the dearest to decode), as it is and
enlarged, 25 frames per second, H.264. Gain: how much of the variance of a configuration's quality the trees explain on
stretches of time that they were not fitted on, with and without the look, on the recordings in bench/traces; mean over
the configurations. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from skyscraper.media.look import LOOK_FEATURES, look
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.media.street import Street, StreetSpec
from skyscraper.media.street.clip import ENCODER
from skyscraper.profile.predict import out_of_fold, segment_features
from skyscraper.record.trace import FEATURES
from skyscraper.simulate.trace import load_trace

SEGMENT_SECONDS = 2.0
SIZES = {"576": (768, 576), "1080": (1920, 1080), "2160": (3840, 2160)}
CAMERA = StreetSpec(density=12, light="night", fps=25, seed=3, seconds=20)
TIMES = 5
# Simulated seconds per second in the recordings: see bench/traces/README.md.
TIME_SCALE = 90


def clip(folder: Path, size: tuple[int, int]) -> Path:
    street = Street(CAMERA)
    path = folder / f"{size[1]}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CAMERA.fps, options={**ENCODER, "g": str(CAMERA.fps)})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(CAMERA.seconds * CAMERA.fps):
            frame = av.VideoFrame.from_ndarray(street.frame(number)[0], format="bgr24")
            container.mux(stream.encode(frame.reformat(*size, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def cost(path: Path) -> dict[str, float]:
    segments = [segment.value for segment in read_segments(parse_source(str(path)), SEGMENT_SECONDS)]
    seconds = []
    for value in segments * TIMES:
        started = time.thread_time()
        look(value)
        seconds.append(time.thread_time() - started)
    found = {f"milliseconds_p{part}": round(1000 * float(np.percentile(seconds, part)), 1) for part in (50, 95, 99)}
    return {**found, "core_seconds_per_camera_hour": round(float(np.mean(seconds)) * 3600 / SEGMENT_SECONDS, 1)}


def explained(name: str) -> dict[str, float]:
    trace = load_trace(Path(__file__).parent / "traces" / f"{name}.npz")
    quality = trace.quality.astype(np.float64)
    packets = FEATURES.index(LOOK_FEATURES[0])
    found = {}
    for told, columns in (("packets", slice(0, packets)), ("packets_and_look", slice(None))):
        features = trace.features[:, columns].astype(np.float64)
        inputs = segment_features(features, trace.segment_seconds * TIME_SCALE, 0, ahead=True)
        predicted, _ = out_of_fold(inputs, quality, seed=0)
        missed = ((predicted - quality) ** 2).mean(axis=0) / quality.var(axis=0)
        found[told] = round(float(1 - missed.mean()), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cost": {}, "explained": {}}
    with tempfile.TemporaryDirectory() as name:
        for lines, size in SIZES.items():
            result["cost"][lines] = cost(clip(Path(name), size))
    for recording in ("street-people", "street-vehicles"):
        result["explained"][recording] = explained(recording)
    if not arguments.json:
        print(json.dumps(result, indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
