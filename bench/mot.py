"""The mot pipeline against ground truth: HOTA, MOTA and IDF1 by configuration, and what its own quality tells of them.

    uv run python bench/mot.py --json [--footage FOLDER] [--seconds 80]

FOLDER holds vtest.avi (OpenCV's sample clip) and gt.txt (the MOT15 labels of PETS09-S2L1, CC BY-NC-SA, not shipped).
The clip's own codec is not one that cameras send, so it is encoded once more, as the street camera is. Scored by
`trackers.eval`, whose numbers are TrackEval's. Between two sightings of a track its box is interpolated, as a reader of
the rows would; so every frame of the truth is scored, whatever the frame rate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from skyscraper.media.segments import VideoSegment, read_segments
from skyscraper.media.sources import parse_source
from skyscraper.media.street.clip import ENCODER
from skyscraper.pipeline import Configuration, Row, SegmentContext, configure, load_pipeline
from skyscraper.record.measure import Detector
from trackers.eval import box_iou, compute_clear_metrics, compute_hota_metrics, compute_identity_metrics

Floats = NDArray[np.float64]

FOOTAGE = Path(os.environ.get("SKYSCRAPER_FOOTAGE", Path(__file__).parents[2] / "shared" / "footage")) / "vtest"
# The header's; the clip is really at 7.
FPS = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
# A reader does not draw a line between sightings that lie farther apart: the tracker itself would not.
LONGEST_GAP_SECONDS = 1.6
# From the cheapest to the dearest: one knob after the other, and some corners.
CHOSEN = (
    "frame_rate=1 model_size=small",
    "frame_rate=2 model_size=small",
    "frame_rate=2 model_size=medium",
    "frame_rate=5 model_size=small history=1",
    "frame_rate=5 model_size=small history=5",
    "frame_rate=5 model_size=medium history=1",
    "frame_rate=5 model_size=medium history=5",
    "frame_rate=5 model_size=large",
    "frame_rate=10 model_size=medium",
    "frame_rate=10 model_size=large",
    "frame_rate=5 model_size=small tiles=2x2",
    "frame_rate=10 model_size=small tiles=2x2",
    "frame_rate=10 model_size=medium tiles=2x2 history=5",
)


def encoded(clip: Path, folder: Path, frames: int) -> Path:
    """The clip as a camera would send it."""
    out = folder / "vtest.ts"
    with av.open(str(clip)) as source, av.open(str(out), "w", format="mpegts") as target:
        stream = target.add_stream(
            "libx264", rate=FPS, options={**ENCODER, "crf": "20", "g": str(FPS), "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            if number == frames:
                break
            picture = frame.reformat(format="yuv420p")
            picture.pts = number
            picture.time_base = 1 / stream.codec_context.framerate
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return out


def tracked(
    segments: list[VideoSegment], configuration: Configuration, detector: Detector
) -> tuple[list[Row], float, float]:
    """The rows, the summed quality, and core-seconds per second of video."""
    pipeline = load_pipeline("mot")
    state: bytes | None = None
    rows: list[Row] = []
    quality = work = 0.0
    for segment in segments:
        (found,) = detector.run(segment, [configuration])
        context = SegmentContext(
            "vtest", "", START + timedelta(seconds=segment.start_seconds), segment.duration_seconds
        )
        result = pipeline.track(state, context, found.frames, found.detections, configuration)
        state = result.state
        rows += result.rows
        quality += result.quality
        work += found.decode_core_seconds + found.detect_core_seconds
    return rows, quality, work / sum(segment.duration_seconds for segment in segments)


def by_frame(rows: list[Row], first_seconds: float, frames: int) -> list[tuple[NDArray[np.int64], Floats]]:
    """Track ids and boxes [m, 4] of every frame of the clip, interpolated between sightings."""
    paths: dict[int, list[tuple[float, list[float]]]] = {}
    for row in rows:
        at = row["event_time"]
        assert isinstance(at, datetime)
        seconds = (at - START).total_seconds() - first_seconds
        box = [float(row[edge]) for edge in ("x_min", "y_min", "x_max", "y_max")]  # type: ignore[arg-type]
        paths.setdefault(int(row["track_id"]), []).append((seconds * FPS, box))  # type: ignore[arg-type]
    found: list[list[tuple[int, list[float]]]] = [[] for _ in range(frames)]
    for track_id, path in paths.items():
        for (at, box), (then, other) in zip(path, [*path[1:], path[-1]], strict=True):
            whole = then - at <= LONGEST_GAP_SECONDS * FPS
            last = max(round(at) + 1, round(then) if whole else 0)
            for number in range(round(at), min(last, frames)):
                share = (number - at) / (then - at) if then > at else 0.0
                found[number].append((track_id, [a + (b - a) * share for a, b in zip(box, other, strict=True)]))
    return [
        (np.array([one for one, _ in frame], dtype=np.int64), np.array([box for _, box in frame]).reshape(-1, 4))
        for frame in found
    ]


def truth_by_frame(labels: Path, frames: int) -> list[tuple[NDArray[np.int64], Floats]]:
    table = np.loadtxt(labels, delimiter=",")
    boxes = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], axis=1)
    rows = [np.flatnonzero(table[:, 0] == number + 1) for number in range(frames)]
    return [(table[row, 1].astype(np.int64), boxes[row]) for row in rows]


def scores(
    truth: list[tuple[NDArray[np.int64], Floats]], found: list[tuple[NDArray[np.int64], Floats]]
) -> dict[str, float]:
    """HOTA, MOTA and IDF1, 1 at best."""
    similarity = [box_iou(real, mine) for (_, real), (_, mine) in zip(truth, found, strict=True)]
    ids = ([one for one, _ in truth], [one for one, _ in found], similarity)
    return {
        "HOTA": float(compute_hota_metrics(*ids)["HOTA"]),
        "MOTA": float(compute_clear_metrics(*ids)["MOTA"]),
        "IDF1": float(compute_identity_metrics(*ids)["IDF1"]),
    }


def measure(footage: Path, seconds: int) -> dict[str, Any]:
    frames = min(795, seconds * FPS)
    truth = truth_by_frame(footage / "gt.txt", frames)
    pipeline = load_pipeline("mot")
    with tempfile.TemporaryDirectory() as folder:
        segments = list(read_segments(parse_source(str(encoded(footage / "vtest.avi", Path(folder), frames))), 2.0))
    detector = Detector(pipeline)
    measured: list[dict[str, Any]] = []
    for text in CHOSEN:
        configuration = configure(pipeline.knobs, dict(part.split("=") for part in text.split()))
        rows, quality, cores = tracked(segments, configuration, detector)
        told = scores(truth, by_frame(rows, segments[0].start_seconds, frames))
        measured.append({"configuration": dict(configuration), "cores": cores, "quality": quality, **told})
        shown = " ".join(f"{name} {value:.3f}" for name, value in told.items())
        print(f"{text}: {cores:.3f} cores, quality {quality:.0f}, {shown}", file=sys.stderr)
    qualities = [one["quality"] for one in measured]
    ranks = {
        f"rank_correlation_{name}": float(spearmanr(qualities, [one[name] for one in measured]).statistic)
        for name in ("HOTA", "MOTA", "IDF1")
    }
    return {"frames": frames, **ranks, "configurations": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the last line is always JSON")
    parser.add_argument("--footage", type=Path, default=FOOTAGE, help="folder of vtest.avi and gt.txt")
    parser.add_argument("--seconds", type=int, default=80, help="how much of the clip, at most 80")
    arguments = parser.parse_args()
    if not (arguments.footage / "gt.txt").is_file():
        parser.error(f"{arguments.footage} has no gt.txt: name a folder with vtest.avi and its labels")
    print(json.dumps(measure(arguments.footage, arguments.seconds)))


if __name__ == "__main__":
    main()
