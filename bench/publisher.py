"""What publishing costs: core-seconds per camera-hour and memory per stream, by the real service on a real broker.

    uv run python bench/publisher.py [--streams 50] [--seconds 30] [--json]

The cameras are looped files at real pace: 1280x720, 25 fps, about 2 Mbit/s, closed GOPs of 1 s. A first, short run with
one stream gives what the process itself takes; the difference is the cameras'. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import topic_specs
from skyscraper.localkafka.broker import LocalBroker

FRAMES_PER_SECOND = 25
CLIP_SECONDS = 20
# Start-up (imports, registration, the first opening of every file) is over after this.
SETTLE_SECONDS = 10


def make_clip(path: Path) -> float:
    """Write the camera's clip; returns its rate in kbit/s."""
    rng = np.random.default_rng(3)
    texture = rng.integers(0, 255, (180, 320, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.gop_size = FRAMES_PER_SECOND
        stream.bit_rate = 2_000_000
        for index in range(CLIP_SECONDS * FRAMES_PER_SECOND):
            picture = np.roll(texture, index * 2, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FRAMES_PER_SECOND)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.stat().st_size * 8 / 1000 / CLIP_SECONDS


def run(folder: Path, servers: str, clip: Path, *, streams: int, seconds: float) -> tuple[float, int]:
    """CPU seconds per second, and resident bytes, of one publisher."""
    lines = ['log_format = "json"', 'log_level = "warning"', "[kafka]", f'bootstrap_servers = "{servers}"']
    lines += ["[spill]", f'folder = "{folder / "spill"}"']
    for number in range(streams):
        lines += ["[[streams]]", f'id = "cam-{number}"', f'source = "{clip}"', "loop = true"]
    config = folder / "publisher.toml"
    config.write_text("\n".join(lines))
    with subprocess.Popen([sys.executable, "-m", "skyscraper_publisher", "--config", str(config)]) as process:
        try:
            time.sleep(SETTLE_SECONDS)
            watched = psutil.Process(process.pid)
            before, since = sum(watched.cpu_times()[:2]), time.monotonic()
            time.sleep(seconds)
            used, elapsed = sum(watched.cpu_times()[:2]) - before, time.monotonic() - since
            resident = watched.memory_info().rss
        finally:
            process.terminate()
            process.wait(30)
    return used / elapsed, resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        rate = make_clip(clip)
        with LocalBroker(folder / "kafka") as broker:
            specs = topic_specs(
                partitions=arguments.streams, pipelines=(), retention_seconds=600, retention_bytes_per_partition=1 << 27
            )
            create_topics({"bootstrap.servers": broker.bootstrap_servers}, specs, replication_factor=1)
            servers = broker.bootstrap_servers
            one = run(folder, servers, clip, streams=1, seconds=min(10.0, arguments.seconds))
            many = run(folder, servers, clip, streams=arguments.streams, seconds=arguments.seconds)
    result = {
        "streams": arguments.streams,
        "kbit_per_second": round(rate),
        "core_seconds_per_camera_hour": round(many[0] * 3600 / arguments.streams, 2),
        "core_seconds_per_camera_hour_marginal": round((many[0] - one[0]) * 3600 / (arguments.streams - 1), 2),
        "resident_mebibytes_one_stream": round(one[1] / 2**20, 1),
        "resident_mebibytes_per_further_stream": round((many[1] - one[1]) / 2**20 / (arguments.streams - 1), 2),
        "load_1_minute": round(os.getloadavg()[0], 1),
    }
    if not arguments.json:
        print("\n".join(f"{key:40} {value}" for key, value in result.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
