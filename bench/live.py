"""The running system against the simulator, and what the decoder adds to decoding and inference.

    uv run python bench/live.py [--quick] [--json] [--folder FOLDER]

1. Street cameras show a compressed day to a real installation (broker, publisher, decoder, inference, tuner). Then
   every configuration is recorded over the same clips, and the simulator replays that trace with the same profile,
   pool and buffer. quality_error, work_error: live against simulated, relative. share_of_optimum: mean quality of the
   live run over the best that the recorded qualities allow. lost, repeated: segments, against what was published.
2. Many streams at their cheapest, switching every segment. decoder_overhead: CPU of the decoder's process beyond what
   decoding and tracking the same segments take outside of it, over all CPU of decoder and inference.

Records on all cores: run it on an idle machine. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from skyscraper.bus.profiles import publish_profile
from skyscraper.bus.reports import seconds
from skyscraper.bus.streams import register_streams
from skyscraper.demo.cameras import Camera
from skyscraper.demo.compare import DayRun
from skyscraper.demo.day import PIPELINE, PROFILE, Scenario, limit_seconds, prepare, run_day, slots, start_tuner
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.pipeline import configure, load_pipeline
from skyscraper.profile.load import load_profile
from skyscraper.record.trace import Recording, record
from skyscraper.simulate.conditions import Resources
from skyscraper.simulate.fitted import FittedStudy
from skyscraper.simulate.trace import Trace, make_trace
from skyscraper.v1 import report_pb2
from skyscraper.v1.stream_pb2 import Stream

MANY_STREAMS = 32
# Of what the cheapest configurations of all take: admission counts on what their work may be, not on its mean.
MANY_POOL = 1.5
WARM_SECONDS, MEASURED_SECONDS = 20.0, 40.0
READY_SECONDS = 120.0

console = Console(stderr=True)


def record_camera(camera: Camera, scenario: Scenario, folder: Path) -> Recording:
    pipeline = load_pipeline(PIPELINE)
    segments = list(read_segments(parse_source(camera.source), scenario.fit.segment_seconds))
    return record(
        pipeline,
        segments,
        [configure(pipeline.knobs, one) for one in scenario.fit.configurations],
        partial=folder / f"{camera.stream_id}.npz",
        processes=0,
        progress=lambda what, done, total: _say(camera, done, total),
    )


def _say(camera: Camera, done: int, total: int) -> None:
    if done == total:
        console.print(f"{camera.stream_id}: every configuration on {total} segments")


def as_trace(name: str, recording: Recording) -> Trace:
    return make_trace(
        name,
        quality=recording.quality,
        work_core_seconds=recording.work,
        segment_bytes=recording.segment_bytes,
        segment_seconds=float(np.median(recording.segment_seconds)),
        features=recording.features,
    )


def live_day(folder: Path, streams: int, day_seconds: int) -> tuple[Scenario, DayRun, dict[str, int]]:
    with Stack(folder, partitions=streams) as stack:
        scenario = prepare(stack, console, day_seconds=day_seconds, streams=streams)
        watch = Watch(stack.client)
        try:
            register_streams(
                stack.client,
                [(Stream(stream_id=one.stream_id, pipeline=PIPELINE), None) for one in scenario.cameras],
                deadline_seconds=READY_SECONDS,
            )
            start_tuner(scenario, stack, console)
            run = run_day("live", scenario, stack, watch, console)
            views = watch.totals.streams.values()
            counts = {
                "lost": watch.published() - watch.accounted() + sum(view.lost + view.dead_lettered for view in views),
                "repeated": sum(view.duplicates for view in views),
            }
        finally:
            watch.close()
    return scenario, run, counts


def compare(scenario: Scenario, run: DayRun, recordings: Mapping[str, Recording]) -> dict[str, Any]:
    day = float(scenario.day_seconds)
    study = FittedStudy(
        scenario.fit,
        [as_trace(name, one) for name, one in recordings.items()],
        slot_seconds=day / slots(day),
        day_seconds=day,
    )
    resources = Resources(scenario.pool_cores, limit_seconds(scenario.fit, day))
    simulated = study.run("priced", resources)
    optimum = study.run("optimum", resources)
    # What a quality is worth does not depend on how busy the machine was; what it costs does.
    recorded = {
        (name, tuple(sorted(configuration.items()))): float(one.work[:, k].mean())
        for name, one in recordings.items()
        for k, configuration in enumerate(scenario.fit.configurations)
    }
    return {
        "quality": {
            "live": round(run.quality, 4),
            "simulated": round(simulated.mean_quality, 4),
            "optimum": round(optimum.mean_quality, 4),
        },
        "core_seconds": {
            "live": round(run.core_seconds, 2),
            "simulated": round(simulated.core_seconds or 0.0, 2),
            "live_at_recorded_cost": round(sum(recorded[one.stream_id, one.configuration] for one in run.moments), 2),
        },
        "quality_error": round(run.quality / simulated.mean_quality - 1, 4),
        "work_error": round(run.core_seconds / (simulated.core_seconds or 1.0) - 1, 4),
        "share_of_optimum": round(run.quality / optimum.mean_quality, 4),
        "share_of_optimum_simulated": round(simulated.share_of_optimum, 4),
        "switches": run.switches,
        "longest_wait_seconds": round(run.longest_wait_seconds, 2),
    }


def overhead(folder: Path, scenario: Scenario, recordings: Mapping[str, Recording]) -> dict[str, Any]:
    """At the cheapest configurations, with the pool's clock, look-ahead and a plan."""
    message = load_profile(PROFILE)
    pool = MANY_POOL * MANY_STREAMS * float(scenario.fit.work.rate[0])
    with Stack(folder, partitions=MANY_STREAMS) as stack:
        stack.start_broker()
        publish_profile(stack.client, message)
        stack.add_inference(models=sorted({one["model"] for one in scenario.fit.configurations}))
        decoder = stack.add_decoder(control={"pool_cores": pool, "limit_seconds": 60.0})
        stack.add_tuner(pool_cores=pool, plan_interval_seconds=5.0, lease_seconds=30.0, limit_seconds=60.0)
        stack.start()
        stack.wait_ready()
        sources = [scenario.cameras[number % len(scenario.cameras)].source for number in range(MANY_STREAMS)]
        stack.add_publisher(
            [
                {"id": f"many-{number}", "source": source, "pipeline": PIPELINE, "loop": True}
                for number, source in enumerate(sources)
            ]
        )
        stack.start("publisher")
        watch = Watch(stack.client)
        try:
            _wait_for_plans(watch)
            watch.poll(WARM_SECONDS)
            inference = stack.services["inference"].process
            assert decoder.process is not None
            assert inference is not None
            processes = [psutil.Process(decoder.process.pid), psutil.Process(inference.pid)]
            begin, began = [sum(one.cpu_times()[:2]) for one in processes], time.time()
            watch.poll(MEASURED_SECONDS)
            used = [sum(one.cpu_times()[:2]) - start for one, start in zip(processes, begin, strict=True)]
            ended = time.time()
            watch.poll(2.0)
            reports = [one.report for one in watch.totals.reports if began <= seconds(one.report.finished_time) < ended]
        finally:
            watch.close()
    bare = _bare_core_seconds(scenario, list(recordings.values()))
    video = sum(bare[tuple(sorted(report.configuration.items()))] for report in reports)
    return {
        "streams": MANY_STREAMS,
        "pool_cores": round(pool, 2),
        "segments": len(reports),
        "segments_expected": round(MANY_STREAMS * (ended - began) / scenario.fit.segment_seconds),
        "priced_share": round(np.mean([one.decision.rule == report_pb2.RULE_PRICED for one in reports]).item(), 3),
        "decoder_core_seconds": round(used[0], 2),
        "inference_core_seconds": round(used[1], 2),
        "decode_and_track_core_seconds": round(video, 2),
        "machine_share": round(sum(used) / (ended - began) / (psutil.cpu_count() or 1), 3),
        "decoder_overhead": round(max(0.0, used[0] - video) / sum(used), 4),
    }


def _wait_for_plans(watch: Watch) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not any(one.report.decision.rule == report_pb2.RULE_PRICED for one in watch.totals.reports[-MANY_STREAMS:]):
        if time.monotonic() >= deadline:
            raise SystemExit(f"no stream followed prices within {READY_SECONDS:g} s")
        watch.poll(1.0)


def _bare_core_seconds(scenario: Scenario, recordings: Sequence[Recording]) -> dict[tuple[tuple[str, str], ...], float]:
    """Of decoding and tracking a segment, by configuration, outside of any service."""
    decode_and_track = np.mean([one.core_seconds[:, :, [0, 2]].sum(axis=2).mean(axis=0) for one in recordings], axis=0)
    return {
        tuple(sorted(configuration.items())): float(value)
        for configuration, value in zip(scenario.fit.configurations, decode_and_track, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 cameras and a day of a minute, instead of 4 and two")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--folder", type=Path, help="keeps recordings there; a killed run goes on")
    arguments = parser.parse_args()
    console.quiet = arguments.json
    streams, day_seconds = (2, 60) if arguments.quick else (4, 120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = (arguments.folder or folder) / f"recordings-{streams}-{day_seconds}"
        scenario, run, counts = live_day(folder / "live", streams, day_seconds)
        recordings = {camera.stream_id: record_camera(camera, scenario, kept) for camera in scenario.cameras}
        result = {
            "streams": streams,
            "day_seconds": day_seconds,
            "pool_cores": round(scenario.pool_cores, 3),
            **compare(scenario, run, recordings),
            **counts,
        }
        many = overhead(folder / "many", scenario, recordings)
    result |= {"many": many, "decoder_overhead": many["decoder_overhead"]}
    if not arguments.json:
        print(json.dumps(result, indent=2))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
