"""A trace as the offline phase takes it."""

from __future__ import annotations

import numpy as np

from skyscraper.errors import ConfigError
from skyscraper.pipeline import Configuration, Pipeline, configure
from skyscraper.profile.errors import ProfileError
from skyscraper.profile.fit import DETECTION_BYTES, Footage
from skyscraper.record.trace import FEATURES
from skyscraper.simulate.trace import Trace


def footage_of(trace: Trace, pipeline: Pipeline) -> Footage:
    """Raises ProfileError where the trace's configurations are not the pipeline's."""
    if not trace.labels:
        raise ProfileError(
            f"{trace.name}: it does not say what its configurations are; record one with `skyscraper trace record`"
        )
    configurations = []
    result_bytes = []
    for text in trace.labels:
        pairs = dict(part.split("=", 1) for part in text.split() if "=" in part)
        try:
            chosen = configure(pipeline.knobs, pairs)
        except ConfigError as error:
            raise ProfileError(
                f"{trace.name}: configuration {text!r} is not one of this pipeline's: {error}"
            ) from error
        configurations.append({name: str(value) for name, value in chosen.items()})
        frames = _frame_bytes(pipeline, chosen, trace.segment_seconds)
        result_bytes.append([frames if name == "decode" else DETECTION_BYTES for name in trace.operators])
    count = trace.segments
    names = FEATURES if trace.features.shape[1] == len(FEATURES) else tuple(map(str, range(trace.features.shape[1])))
    return Footage(
        quality=trace.quality,
        work=trace.work_core_seconds,
        seconds=np.full(count, trace.segment_seconds),
        start_seconds=np.asarray(np.arange(count) * trace.segment_seconds, dtype=np.float64),
        segment_bytes=trace.segment_bytes,
        features=trace.features,
        feature_names=names,
        configurations=tuple(configurations),
        operators=trace.operators,
        operator_work=trace.operator_work,
        result_bytes=np.array(result_bytes) if trace.operators else None,
    )


def _frame_bytes(pipeline: Pipeline, configuration: Configuration, segment_seconds: float) -> float:
    """Of a segment's sampled frames as the detector sees them."""
    sampling = pipeline.sampling(configuration)
    return sampling.frames_per_second * segment_seconds * sampling.width * sampling.height * 3
