"""Segments on burst machines: what that would cost and take, as believed; and sending them there.

Whole segments go: the compressed bytes up, detections down, tracking stays here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.control.live import BurstOffer
from skyscraper.control.work import recalibrated
from skyscraper.pipeline import Configuration, Detections, Frames, Pipeline
from skyscraper.pipeline.pipeline import STATELESS_OPERATORS
from skyscraper.profile.fit import Fit
from skyscraper.rpc.burst_client import BurstClient, BurstFailed, BurstTerms
from skyscraper.rpc.stage import StageError, read_outputs, stage_inputs, stage_model

Floats = NDArray[np.float64]

# Of a measurement of what answers take beside their work: the last ten or so count.
_NEWEST_SHARE = 0.1
# Of what is believed to be slow, with every segment: half of it is forgotten within a minute or two.
_FADING_SHARE = 0.02
# A call may take so many times what it should, and a moment more, before the pool is next: retries and a hedge fit in,
# and what the budget must hold for it stays small.
_PATIENCE, _PATIENCE_SECONDS = 2.5, 1.0


@dataclass
class AwayBelief:
    """share [K] of a configuration's work that can be away, NaN where none can; scale: core-seconds there over those
    estimated here; overhead_seconds: what answers take beside their work, None before the first."""

    share: Floats
    scale: float = 1.0
    overhead_seconds: float | None = None

    def learn(self, *, estimated: float, core_seconds: float, seconds: float) -> None:
        """From one answer: core-seconds estimated (unscaled) and measured there, and how long it was away."""
        self.scale = float(recalibrated(self.scale, estimated, core_seconds))
        overhead = max(0.0, seconds - core_seconds)
        before = overhead if self.overhead_seconds is None else self.overhead_seconds
        self.overhead_seconds = before + _NEWEST_SHARE * (overhead - before)

    def missed(self, *, expected_core_seconds: float, seconds: float) -> None:
        """No answer came within so long: it would have taken more than that."""
        self.overhead_seconds = max(self.overhead_seconds or 0.0, seconds - expected_core_seconds)

    def fade(self, round_trip_seconds: float) -> None:
        """With every segment of the stream: what was slow is believed to get better, or it would never be tried
        again."""
        before = self.overhead_seconds
        if before is not None and before > round_trip_seconds:
            self.overhead_seconds = before + _FADING_SHARE * (round_trip_seconds - before)


@dataclass(frozen=True)
class Offer:
    """What the switch is offered, and what each configuration would need: [K] core-seconds there, and seconds."""

    burst: BurstOffer
    core_seconds: Floats
    seconds: Floats


@dataclass(frozen=True)
class Away:
    """What came back."""

    frames: Frames
    detections: Sequence[Detections]
    core_seconds: float
    nano_usd: int


def away_share(fit: Fit) -> Floats:
    """[K] part of each configuration's work in its stateless operators; NaN where its placements do not have them all
    on burst machines."""
    found = np.full(len(fit.configurations), np.nan)
    for k, placements in enumerate(fit.placements):
        total = float(fit.operator_work[k].sum())
        for one in placements:
            if set(one.burst_operators) == set(STATELESS_OPERATORS) and total > 0:
                found[k] = 1.0 - one.pool_core_seconds / total
    return found


def offer(
    away: AwayBelief,
    terms: BurstTerms,
    work: Floats,
    *,
    longest_seconds: float,
    round_trip_seconds: float,
    usd_price: float,
) -> Offer | None:
    """None where nothing can be away. work [K] core-seconds in the pool, as estimated; longest_seconds: what is
    expected to take longer is not offered."""
    core_seconds = work * away.share * away.scale
    overhead = round_trip_seconds if away.overhead_seconds is None else away.overhead_seconds
    seconds = core_seconds + overhead + terms.uplink_wait_seconds
    with np.errstate(invalid="ignore"):
        good = seconds <= longest_seconds
    if not good.any():
        return None
    burst = BurstOffer(
        work=np.where(good, work * (1.0 - away.share), np.inf),
        usd=np.where(good, core_seconds * terms.usd_per_core_second, np.inf),
        usd_price=usd_price,
        left_usd=terms.left_usd,
    )
    return Offer(burst, core_seconds, seconds)


def call_seconds(expected_seconds: float, most_seconds: float) -> float:
    """How long to wait for an answer that should take `expected_seconds`."""
    return min(_PATIENCE * expected_seconds + _PATIENCE_SECONDS, most_seconds)


def send(
    client: BurstClient,
    segment: bytes,
    pipeline: Pipeline,
    configuration: Configuration,
    *,
    expected_frames: int | None,
    tenant: str,
    core_seconds: float,
    advantage: float,
    deadline_seconds: float,
) -> Away:
    """Decode and detect on a burst machine. Raises BurstFailed, and BadSegment as the pipeline here would."""
    done = client.infer(
        stage_model(pipeline.name),
        stage_inputs(segment, configuration, pipeline_version=pipeline.version, expected_frames=expected_frames),
        tenant=tenant,
        estimated_core_seconds=core_seconds,
        bid_per_byte=advantage / max(len(segment), 1),
        deadline_seconds=deadline_seconds,
    )
    try:
        frames, detections = read_outputs(done.outputs)
    except StageError as error:
        raise BurstFailed("answer", str(error)) from error
    return Away(frames, detections, done.core_seconds, done.nano_usd)
