"""How much of every core-second goes into video: the whole system against a bare loop.

The same segments, model, batch size and tracker run twice: through decoder and inference as separate processes over
Kafka and gRPC, and in one process in one loop (PyAV, ONNX Runtime, the pipeline's own code). `ratio` is frames per
core-second of the first over the second; what is missing to 1 is the price of the architecture. Kafka's broker is
counted apart (`hop_share`), the publisher and the loader not at all: a bare loop has none of them.

Runs alternate, so that a noisy machine hurts both alike; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
from confluent_kafka import Consumer, TopicPartition
from numpy.typing import NDArray
from skyscraper.bus import topics
from skyscraper.bus.headers import decode_headers
from skyscraper.bus.reports import seconds
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.media.decode import decode_segment
from skyscraper.models.repository import default_repository, install_models
from skyscraper.pipeline import Configuration, SegmentContext, configure
from skyscraper.v1 import report_pb2
from skyscraper_pipelines.counting import CountingPipeline

STREAMS = 4
BATCH_ROWS = 8
DRAIN_SECONDS = 300.0


class DirectModels:
    """The same model without a server: batches of the same size on one thread."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        path = default_repository() / model / "1" / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def infer(self, model: str, inputs: Any, parameters: Any = None) -> dict[str, NDArray[Any]]:
        images = inputs["images"]
        parts = [
            self._session.run(self._names, {"images": images[start : start + BATCH_ROWS]})
            for start in range(0, len(images), BATCH_ROWS)
        ]
        joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
        return dict(zip(self._names, joined, strict=True))


def bare_loop(segments: Sequence[tuple[str, bytes, Any]], configuration: Configuration) -> tuple[int, float]:
    """Frames analysed and CPU seconds of one pass over the segments."""
    pipeline, models = CountingPipeline(), DirectModels(str(configuration["model"]))
    models.infer("", {"images": np.zeros((BATCH_ROWS, *[int(configuration["input_size"])] * 2, 3), np.uint8)})
    states: dict[str, bytes] = {}
    frames_analysed = 0
    started = time.process_time()
    for stream_id, value, headers in segments:
        frames = decode_segment(value, pipeline.sampling(configuration), expected_frames=headers.frames)
        detections = pipeline.detect(frames, configuration, models)
        context = SegmentContext(stream_id, "", headers.time.astimezone(UTC), frames.duration_seconds)
        states[stream_id] = pipeline.track(states.get(stream_id), context, frames, detections, configuration).state
        frames_analysed += len(frames.images)
    return frames_analysed, time.process_time() - started


def read_segments(client: dict[str, str], count: int) -> list[tuple[str, bytes, Any]]:
    consumer = Consumer({**client, "group.id": "bench", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topics.SEGMENTS, partition, 0) for partition in range(STREAMS)])
    segments: list[tuple[str, bytes, Any]] = []
    while len(segments) < count:
        message = consumer.poll(5)
        if message is None or message.error() is not None:
            raise SystemExit("the published segments cannot be read back")
        headers, _ = decode_headers(message.headers())  # type: ignore[arg-type]
        segments.append(((message.key() or b"").decode(), message.value() or b"", headers))
    consumer.close()
    return segments


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def whole_system(stack: Stack, name: str, segments: int) -> dict[str, Any]:
    """CPU seconds per process while a fresh decoder works off everything in Kafka."""
    service = stack.add_decoder(name, group=f"bench-{name}")
    # Reports of earlier runs are in the topic already: look only at what comes.
    watch = Watch(stack.client)
    watch.poll(1.0)
    before_reports = len(watch.totals.reports)
    inference = stack.services["inference"].process
    assert inference is not None
    before = {"inference": cpu_seconds(inference.pid), "broker": cpu_seconds(stack.broker.pids[0])}
    stack.start(name)
    deadline = time.monotonic() + DRAIN_SECONDS
    start_cpu: float | None = None
    assert service.process is not None
    while len(watch.totals.reports) - before_reports < segments:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(watch.totals.reports) - before_reports} of {segments} segments were processed")
        # Importing libraries is paid once in a decoder's life, not per frame.
        if start_cpu is None and stack.is_ready(name):
            start_cpu = cpu_seconds(service.process.pid)
        watch.poll(0.05)
    decoder = cpu_seconds(service.process.pid) - (start_cpu or 0.0)
    inference_cpu = cpu_seconds(inference.pid) - before["inference"]
    broker = cpu_seconds(stack.broker.pids[0]) - before["broker"]
    stack.terminate(name)
    reports = [one.report for one in watch.totals.reports[before_reports:]]
    watch.close()
    if any(report.outcome != report_pb2.OUTCOME_PROCESSED for report in reports):
        raise SystemExit(f"not every segment was processed: {reports[-1]}")
    steps = [seconds(report.finished_time) - seconds(report.started_time) for report in reports]
    return {
        "frames": sum(report.frames_analysed for report in reports),
        "decoder": decoder,
        "decoder_steps": sum(report.decoder_core_seconds for report in reports),
        "inference": inference_cpu,
        "inference_model": sum(report.inference_core_seconds for report in reports),
        "broker": broker,
        "steps": steps,
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    knobs = {"model": arguments.model, "frame_rate": str(arguments.frame_rate), "input_size": str(arguments.input_size)}
    configuration = configure(CountingPipeline().knobs, knobs)
    install_models([arguments.model])
    count = STREAMS * arguments.segments
    runs, bare = [], []
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), partitions=STREAMS) as stack:
        stack.start_broker()
        size = arguments.input_size
        stack.add_inference(models=[arguments.model], warmup_shapes=[{"height": size, "width": size}])
        stack.start("inference")
        stack.add_publisher([_camera(number, knobs, arguments.segments) for number in range(STREAMS)])
        stack.start("publisher")
        stack.wait_ready("inference")
        publisher = stack.services["publisher"].process
        assert publisher is not None
        publisher.wait(120)
        segments = read_segments(stack.client, count)
        for number in range(arguments.runs):
            frames, used = bare_loop(segments, configuration)
            bare.append(frames / used)
            print(f"bare loop: {frames} frames, {used:.2f} core-seconds", file=sys.stderr)
            runs.append(whole_system(stack, f"decoder-{number}", count))
            print(f"system: { ({k: v for k, v in runs[-1].items() if k != 'steps'}) }", file=sys.stderr)
    return summarise(runs, bare, knobs)


def summarise(runs: Sequence[dict[str, Any]], bare: Sequence[float], knobs: dict[str, str]) -> dict[str, Any]:
    speeds = [run["frames"] / (run["decoder"] + run["inference"]) for run in runs]
    typical = sorted(zip(speeds, runs, strict=True), key=lambda pair: pair[0])[len(runs) // 2][1]
    parts = {
        "decoder_decode_and_track": typical["decoder_steps"],
        "decoder_other": max(0.0, typical["decoder"] - typical["decoder_steps"]),
        "inference_model": typical["inference_model"],
        "inference_other": max(0.0, typical["inference"] - typical["inference_model"]),
        "broker": typical["broker"],
    }
    total = sum(parts.values())
    steps = np.concatenate([run["steps"] for run in runs])
    return {
        "configuration": knobs,
        "frames": typical["frames"],
        "frames_per_core_second": round(statistics.median(speeds), 2),
        "bare_loop_frames_per_core_second": round(statistics.median(bare), 2),
        "ratio": round(statistics.median(speeds) / statistics.median(bare), 4),
        "hop_share": {name: round(value / total, 4) for name, value in parts.items()},
        "step_seconds": {f"p{q}": round(float(np.percentile(steps, q)), 4) for q in (50, 95, 99)},
        "runs": len(runs),
    }


def _camera(number: int, knobs: dict[str, str], segments: int) -> dict[str, Any]:
    return {
        "id": f"bench-{number}",
        "source": f"street:people?seed={number}&density=6&seconds=24",
        "pipeline": "counting",
        "configuration": knobs,
        "loop": True,
        "pace": "max",
        "max_segments": segments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the last line is always JSON")
    parser.add_argument("--model", default="nanodet-g")
    parser.add_argument("--input-size", type=int, default=416)
    parser.add_argument("--frame-rate", type=int, default=10)
    parser.add_argument("--segments", type=int, default=12, help="per stream, of 2 s each")
    parser.add_argument("--runs", type=int, default=3)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
