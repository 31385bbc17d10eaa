"""A small fitted profile of the counting pipeline, and segments as a decoder would report them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from skyscraper.bus.profiles import describe
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.codec import encode_fit
from skyscraper.profile.fit import Fit, Footage, fit
from skyscraper.profile.place import Burst
from skyscraper.v1 import profile_pb2, report_pb2
from skyscraper_pipelines.counting.pipeline import CountingPipeline

Floats = NDArray[np.float64]

# Of a day of five minutes.
DAY_SECONDS, SEGMENT_SECONDS = 300.0, 1.0
CORES = np.array([0.1, 0.5, 2.0])
# Shares of quality that configurations lose where it is full.
LOSS = np.array([0.6, 0.3, 0.0])
CONFIGURATIONS = tuple({"detect_fps": str(fps)} for fps in (1, 2, 5))


def load_at(seconds: Floats) -> Floats:
    """[T] how full it is: a rush in the middle of the day."""
    return np.asarray(0.2 + np.exp(-((((seconds % DAY_SECONDS) / DAY_SECONDS - 0.5) / 0.15) ** 2)))


def qualities(load: Floats) -> Floats:
    """[T,K]"""
    return np.asarray(load[:, None] * (1 - LOSS * np.clip(load, 0, 1)[:, None]))


def small_fit(*, days: int = 4, seed: int = 0) -> Fit:
    rng = np.random.default_rng(seed)
    seconds = np.arange(0, days * DAY_SECONDS, SEGMENT_SECONDS)
    load = (load_at(seconds) * (1 + 0.05 * rng.normal(size=len(seconds)))).clip(0.02)
    return fit(
        Footage(
            quality=qualities(load) * (1 + 0.02 * rng.normal(size=(len(load), 3))),
            work=CORES * SEGMENT_SECONDS * rng.uniform(0.9, 1.1, (len(load), 1)),
            seconds=np.full(len(load), SEGMENT_SECONDS),
            # A profile's days have 24 hours.
            start_seconds=np.asarray(seconds * SECONDS_PER_DAY / DAY_SECONDS, dtype=np.float64),
            segment_bytes=np.full(len(load), 1e5),
            features=np.stack([load + 0.02 * rng.normal(size=len(load)), rng.normal(size=len(load))], axis=1),
            feature_names=("bytes_per_frame", "noise"),
            configurations=CONFIGURATIONS,
        ),
        seed=seed,
        burst=Burst(1e-5, 0.1, 1e7, 1e7),
        stateless=(),
        categories=3,
    )


def profile_of(learned: Fit) -> profile_pb2.Profile:
    profile = describe(CountingPipeline())
    profile.fit.CopyFrom(encode_fit(learned))
    return profile


def reports(
    stream_id: str,
    learned: Fit,
    *,
    start_seconds: float,
    count: int,
    first: int = 0,
    seed: int = 0,
    factor: float = 1.0,
    version: str | None = None,
) -> Iterator[report_pb2.SegmentReport]:
    """`count` segments one after the other, each under a configuration drawn by chance.

    `factor`: of quality against what was learned, which is drift.
    """
    rng = np.random.default_rng((seed, first))
    seconds = start_seconds + np.arange(count, dtype=np.float64) * SEGMENT_SECONDS
    load = (load_at(seconds) * (1 + 0.05 * rng.normal(size=count))).clip(0.02)
    truth = qualities(load)
    for index in range(count):
        k = int(rng.integers(3))
        report = report_pb2.SegmentReport(
            stream_id=stream_id,
            pipeline="counting",
            segment_id=f"{stream_id}/1/{first + index}",
            outcome=report_pb2.OUTCOME_PROCESSED,
            duration_seconds=SEGMENT_SECONDS,
            segment_bytes=100_000,
            configuration=CONFIGURATIONS[k],
            quality=factor * truth[index, k],
            decoder_core_seconds=0.4 * CORES[k],
            inference_core_seconds=0.8 * CORES[k],
            features=[load[index], rng.normal()],
            decision=report_pb2.Decision(
                rule=report_pb2.RULE_PRICED,
                configuration=k,
                profile_version=version or learned.version,
                predicted_quality=truth[index],
                value_scale=1 / learned.mean_quality[-1],
                estimated_core_seconds=CORES * SEGMENT_SECONDS,
                category=int(np.abs(learned.categories.centres[:, k] - truth[index, k]).argmin()),
            ),
        )
        report.event_time.FromNanoseconds(round(seconds[index] * 1e9))
        yield report
