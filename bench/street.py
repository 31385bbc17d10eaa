"""What a street camera costs: rendering and encoding, frames per second of one core, and bytes on the bus."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
from skyscraper.media.street import Street, StreetSpec
from skyscraper.media.street.clip import ENCODER

FRAMES = 300


def measure(spec: StreetSpec, folder: Path) -> dict[str, Any]:
    street = Street(spec)
    street.frame(0)
    started = time.thread_time()
    images = [street.frame(number)[0] for number in range(FRAMES)]
    rendering = time.thread_time() - started
    path = folder / "clip.ts"
    started = time.thread_time()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=spec.fps, options={**ENCODER, "g": str(spec.fps)})
        stream.width, stream.height, stream.pix_fmt = *street.size, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    encoding = time.thread_time() - started
    return {
        "render_fps": round(FRAMES / rendering),
        "encode_fps": round(FRAMES / encoding),
        "kilobits_per_second": round(path.stat().st_size * 8 / FRAMES * spec.fps / 1000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the last line is always JSON")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cameras = {
            f"{light}_{density}": measure(StreetSpec(seed=1, density=density, light=light), Path(folder))
            for light in ("day", "dusk", "night")
            for density in (3, 12)
        }
    print(json.dumps({"render_fps": min(camera["render_fps"] for camera in cameras.values()), "cameras": cameras}))


if __name__ == "__main__":
    main()
