"""How fast this machine is, next to the one that the demo's profile was measured on: a third of it is then a third."""

from __future__ import annotations

from skyscraper.demo.cameras import Camera
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.pipeline import configure, load_pipeline
from skyscraper.record.measure import Detector
from skyscraper.v1 import profile_pb2


def measure_machine(fit: profile_pb2.Fit, camera: Camera) -> float:
    """Core-seconds that the dearest configuration takes here over those it took there."""
    pipeline = load_pipeline("counting")
    dearest = fit.configurations[-1]
    configuration = configure(pipeline.knobs, dearest.knobs)
    detector = Detector(pipeline)
    taken = length = 0.0
    for number, segment in enumerate(read_segments(parse_source(camera.source), fit.segment_seconds)):
        (found,) = detector.run(segment, [configuration])
        # The first one loads the model.
        if number:
            taken += found.decode_core_seconds + found.detect_core_seconds
            length += segment.duration_seconds
    return taken / (length * dearest.core_seconds_per_second)


def scale_work(fit: profile_pb2.Fit, factor: float) -> None:
    """Make the fit that of a machine whose core-seconds are worth so much less."""
    for configuration in fit.configurations:
        configuration.core_seconds_per_second *= factor
        for operator in configuration.operators:
            operator.core_seconds *= factor
        for placement in configuration.placements:
            placement.pool_core_seconds *= factor
