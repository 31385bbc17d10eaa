"""From a source of video to a recording: cut it, search knobs, run what was found. Kept in a folder, so resumable."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscraper.errors import SkyscraperError
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import Source, SourceKind
from skyscraper.pipeline import Configuration, Pipeline, configure
from skyscraper.pipeline.pipeline import OPERATORS
from skyscraper.profile.fit import Progress
from skyscraper.record.trace import Recording, record, search_configurations
from skyscraper.simulate.prices import BURST_USD_PER_CORE_SECOND, ROUND_TRIP_SECONDS
from skyscraper.simulate.trace import Trace, make_trace

Floats = NDArray[np.float64]

_FEWEST_SEGMENTS = 60


def make_recording(
    pipeline: Pipeline,
    source: Source,
    *,
    segment_seconds: float,
    max_segments: int,
    most_configurations: int,
    search_segments: int,
    folder: Path,
    processes: int,
    progress: Progress,
) -> tuple[Recording, Floats | None]:
    """The recording, and the hour of day of its segments where the source has one. Raises SourceError and
    SkyscraperError where the source is live or too short."""
    if source.live:
        raise SkyscraperError(f"{source.shown} is live: record from files, so that a run can be repeated")
    segments = list(islice(read_segments(source, segment_seconds), max_segments))
    if len(segments) < _FEWEST_SEGMENTS:
        raise SkyscraperError(
            f"{source.shown} gives {len(segments)} segments of {segment_seconds:g} s; at least {_FEWEST_SEGMENTS} are "
            "needed to learn from"
        )
    folder.mkdir(parents=True, exist_ok=True)
    searched = folder / "configurations.json"
    identity = {
        "pipeline": f"{pipeline.name} {pipeline.version}",
        "of": f"{source.location} {segment_seconds} {max_segments}",
    }
    configurations = _searched(pipeline, searched, identity)
    if configurations is None:
        found = search_configurations(
            pipeline,
            segments,
            sampled=search_segments,
            most=most_configurations,
            processes=processes,
            progress=progress,
        )
        configurations = found.configurations
        described = identity | {"configurations": [dict(one) for one in configurations]}
        searched.write_text(json.dumps(described, indent=1), encoding="utf-8")
    recording = record(
        pipeline, segments, configurations, partial=folder / "record.npz", processes=processes, progress=progress
    )
    return recording, _hours(source, recording)


def _searched(pipeline: Pipeline, path: Path, identity: dict[str, str]) -> list[Configuration] | None:
    """What an earlier run's search found, if it was for the same pipeline and source."""
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    if any(stored[name] != value for name, value in identity.items()):
        return None
    return [
        configure(pipeline.knobs, {name: str(value) for name, value in one.items()}) for one in stored["configurations"]
    ]


def _hours(source: Source, recording: Recording) -> Floats | None:
    if source.kind is not SourceKind.STREET:
        return None
    from skyscraper.media.street import StreetSpec

    spec = StreetSpec.parse(source.location)
    hours: Floats = (spec.start_hour + recording.start_seconds * spec.time_scale / 3600) % 24
    return hours if spec.light == "curve" else None


def label(configuration: Configuration) -> str:
    return " ".join(f"{name}={value}" for name, value in configuration.items())


def to_trace(name: str, recording: Recording, hours: Floats | None) -> Trace:
    """As a trace, its configurations ordered by their mean work, and with burst prices of the paper's ratio."""
    order = np.argsort(recording.work.mean(axis=0), kind="stable")
    work = recording.work[:, order]
    arrays = {"hours": hours} if hours is not None else {}
    return make_trace(
        name,
        quality=recording.quality[:, order],
        work_core_seconds=work,
        segment_bytes=recording.segment_bytes,
        segment_seconds=float(np.median(recording.segment_seconds)),
        features=recording.features,
        burst_usd=work.mean(axis=0) * BURST_USD_PER_CORE_SECOND,
        burst_seconds=work.mean(axis=0) + ROUND_TRIP_SECONDS,
        labels=[label(recording.configurations[index]) for index in order],
        operators=OPERATORS,
        operator_work=recording.core_seconds.mean(axis=0)[order],
        **arrays,
    )
