"""Recording a trace: every chosen configuration of a pipeline over every segment of a source. Resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscraper.media.look import LOOK_FEATURES
from skyscraper.media.segments import VideoSegment
from skyscraper.pipeline import Configuration, Pipeline
from skyscraper.pipeline.pipeline import OPERATORS
from skyscraper.profile.fit import Progress
from skyscraper.profile.sample import diverse
from skyscraper.profile.search import Found, Score, cheapest, dearest, search
from skyscraper.record.measure import Tracks, detect_all

Floats = NDArray[np.float64]

# Content features a trace holds, in this order; one that a segment does not give is 0.
FEATURES = ("bytes_per_frame", "interframe_bytes", "interframe_bytes_cv", "ip_ratio", "keyframe_bytes", *LOOK_FEATURES)
# Segments of which the cheapest and the dearest quality are measured, to choose those for the search among: a quarter
# of the footage, and no more than this.
_LOOKED_AT = 48
_SAVE_EVERY_SEGMENTS = 20


@dataclass(frozen=True)
class Recording:
    """quality [T,K]; core_seconds [T,K,operators]; the rest [T]; features [T,F]."""

    configurations: tuple[Configuration, ...]
    quality: Floats
    core_seconds: Floats
    segment_bytes: Floats
    segment_seconds: Floats
    start_seconds: Floats
    features: Floats

    @property
    def work(self) -> Floats:
        """[T,K] core-seconds of all operators."""
        return np.asarray(self.core_seconds.sum(axis=2))


def features_of(segment: VideoSegment) -> list[float]:
    return [segment.features.get(name, 0.0) for name in FEATURES]


def search_configurations(
    pipeline: Pipeline, segments: Sequence[VideoSegment], *, sampled: int, most: int, processes: int, progress: Progress
) -> Found:
    """The knob search of the paper's section 3.1 on real segments. A segment's predecessor warms the tracker up."""
    looked = np.unique(np.linspace(1, len(segments) - 1, min(_LOOKED_AT, len(segments) // 4)).astype(int))

    def measure(wanted: Sequence[tuple[int, Configuration]], of: Sequence[int], what: str) -> list[Score]:
        """Batches by segment, all cores busy."""
        groups: dict[int, list[int]] = {}
        for index, (segment, _) in enumerate(wanted):
            groups.setdefault(segment, []).append(index)
        scores = [Score(0.0, 0.0)] * len(wanted)
        pairs, lists = [], []
        for segment, indices in groups.items():
            pairs += [segments[of[segment] - 1], segments[of[segment]]]
            lists += [[wanted[index][1] for index in indices]] * 2
        found = detect_all(pipeline.name, pairs, lists, processes=processes)
        for number, (segment, indices) in enumerate(groups.items()):
            tracks = Tracks(pipeline, lists[2 * number])
            tracks.follow(segments[of[segment] - 1], next(found))
            for index, one in zip(indices, tracks.follow(segments[of[segment]], next(found)), strict=True):
                scores[index] = Score(one.quality, one.work)
            progress(what, number + 1, len(groups))
        return scores

    ends = (cheapest(pipeline.knobs), dearest(pipeline.knobs))
    scores = measure([(index, one) for index in range(len(looked)) for one in ends], looked.tolist(), "sampling")
    vectors = np.array([score.quality for score in scores]).reshape(len(looked), 2)
    chosen = [int(looked[index]) for index in diverse(vectors, sampled)]
    return search(pipeline.knobs, len(chosen), lambda wanted: measure(wanted, chosen, "searching"), most=most)


def record(
    pipeline: Pipeline,
    segments: Sequence[VideoSegment],
    configurations: Sequence[Configuration],
    *,
    partial: Path,
    processes: int,
    progress: Progress,
) -> Recording:
    """Run every configuration on every segment. What a killed run did is found in `partial` and not done again."""
    shape = (len(segments), len(configurations))
    tables = {"quality": np.zeros(shape), "work": np.zeros((*shape, len(OPERATORS)))}
    digest = _digest(pipeline, segments, configurations)
    tracks = Tracks(pipeline, configurations)
    done = _resume(partial, digest, tables, tracks)
    rest = segments[done:]
    found = detect_all(pipeline.name, rest, [configurations] * len(rest), processes=processes)
    for index, detected in enumerate(found, start=done):
        for k, one in enumerate(tracks.follow(segments[index], detected)):
            tables["quality"][index, k] = one.quality
            tables["work"][index, k] = [one.core_seconds[name] for name in OPERATORS]
        progress("recording", index + 1, len(segments))
        if (index + 1) % _SAVE_EVERY_SEGMENTS == 0:
            _save(partial, digest, index + 1, tables, tracks)
    _save(partial, digest, len(segments), tables, tracks)
    return Recording(
        tuple(configurations),
        tables["quality"],
        tables["work"],
        np.array([len(segment.value) for segment in segments], dtype=np.float64),
        np.array([segment.duration_seconds for segment in segments]),
        np.array([segment.start_seconds for segment in segments]),
        np.array([features_of(segment) for segment in segments]),
    )


def _digest(pipeline: Pipeline, segments: Sequence[VideoSegment], configurations: Sequence[Configuration]) -> str:
    """Of everything that a recording depends on."""
    digest = hashlib.sha256(json.dumps([pipeline.name, pipeline.version, [*map(dict, configurations)]]).encode())
    for segment in segments:
        digest.update(hashlib.sha256(segment.value).digest())
    return digest.hexdigest()


def _resume(partial: Path, digest: str, tables: dict[str, Floats], tracks: Tracks) -> int:
    if not partial.exists():
        return 0
    with np.load(partial, allow_pickle=False) as stored:
        if str(stored["digest"]) != digest:
            return 0
        for name, table in tables.items():
            table[:] = stored[name]
        lengths = stored["state_lengths"]
        data = stored["states"].tobytes()
        ends = np.cumsum(np.maximum(lengths, 0))
        tracks.states = [
            None if length < 0 else data[end - length : end] for length, end in zip(lengths, ends, strict=True)
        ]
        return int(stored["done"])


def _save(partial: Path, digest: str, done: int, tables: dict[str, Floats], tracks: Tracks) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    states = tracks.states
    temporary = partial.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        digest=digest,
        done=done,
        state_lengths=np.array([-1 if state is None else len(state) for state in states]),
        states=np.frombuffer(b"".join(state or b"" for state in states), dtype=np.uint8),
        quality=tables["quality"],
        work=tables["work"],
    )
    temporary.rename(partial)
