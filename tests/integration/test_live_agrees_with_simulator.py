"""What was simulated is what runs: the decoder's own switch, foresight and turnstile over a trace, in virtual time."""

from __future__ import annotations

import numpy as np
import pytest
from skyscraper.control.joint import StreamPast, joint_plan
from skyscraper.control.outlook import PoolPrices
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.pipeline import Knob, Pipeline
from skyscraper.profile.fit import Fit, Footage, fit
from skyscraper.profile.place import Burst
from skyscraper.simulate.conditions import Resources
from skyscraper.simulate.generate import generate
from skyscraper.simulate.run import Study
from skyscraper.simulate.trace import Trace
from skyscraper.v1 import plan_pb2, report_pb2
from skyscraper_decoder.ahead import Ahead, Seen
from skyscraper_decoder.foresight import Foresight
from skyscraper_decoder.minds import Minds
from skyscraper_decoder.plans import PlanBook, PoolView
from skyscraper_decoder.switching import Switcher
from skyscraper_decoder.turnstile import Turnstile
from skyscraper_pipelines.counting import CountingPipeline

SEGMENT_SECONDS, DAYS, TRAIN = 32.0, 5.0, 0.6
BUFFER_SECONDS, SLOT_SECONDS = 3_600.0, 320.0
REFRESH_SEGMENTS = 4
STREAM = "gate-1"


class OneKnob(CountingPipeline):
    """The trace's configurations are values of one knob."""

    name = "counting"
    knobs: tuple[Knob, ...] = (  # type: ignore[assignment]
        Knob("level", tuple(range(8)), 0, "Which configuration."),
    )


class Book(PlanBook):
    """Plans without a broker."""

    def __init__(self, pool: PoolPrices, stream: plan_pb2.StreamPlan, learned: Fit) -> None:
        self._view = PoolView(pool, 1, float("inf"))
        self._stream = stream
        self._fit = learned

    def pool(self) -> PoolView | None:
        return self._view

    def stale(self, view: PoolView | None) -> bool:
        return False

    def stream(self, stream_id: str) -> plan_pb2.StreamPlan | None:
        return self._stream

    def fit(self, pipeline: str, version: str) -> Fit | None:
        return self._fit


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def learn(trace: Trace, split: int) -> Fit:
    return fit(
        Footage(
            quality=trace.quality[:split].astype(np.float64),
            work=trace.work_core_seconds[:split],
            seconds=np.full(split, SEGMENT_SECONDS),
            start_seconds=np.asarray(np.arange(split) * SEGMENT_SECONDS, dtype=np.float64),
            segment_bytes=trace.segment_bytes[:split].astype(np.float64),
            features=trace.features[:split].astype(np.float64),
            feature_names=tuple(f"f{index}" for index in range(trace.features.shape[1])),
            configurations=tuple({"level": str(k)} for k in range(trace.configurations)),
        ),
        seed=0,
        burst=Burst(1e-5, 0.1, 1e7, 1e7),
        stateless=(),
        categories=4,
    )


def plan(learned: Fit, cores: float) -> PoolPrices:
    history = learned.history
    past = StreamPast(
        STREAM,
        history.predicted,
        history.truth,
        history.seconds,
        SEGMENT_SECONDS,
        learned.work.estimate(SEGMENT_SECONDS),
        value_scale=1.0,
    )
    made = joint_plan(
        [past],
        cores=cores,
        segment_seconds=SEGMENT_SECONDS,
        slot_seconds=SLOT_SECONDS,
        day_seconds=SECONDS_PER_DAY,
        limit_seconds=BUFFER_SECONDS,
        usd_per_day=0.0,
    )
    return PoolPrices(
        cores, BUFFER_SECONDS, SECONDS_PER_DAY, SLOT_SECONDS, SEGMENT_SECONDS, usd_per_day=0.0, price=made.price
    )


def live(trace: Trace, split: int, learned: Fit, pool: PoolPrices) -> dict[str, float]:
    """One stream through the decoder's parts, as its lane would call them."""
    clock = Clock()
    stream = plan_pb2.StreamPlan(
        stream_id=STREAM,
        pipeline="counting",
        policy=plan_pb2.POLICY_PRICED,
        value_scale=1.0,
        cores=pool.cores,
        work_scale=1.0,
    )
    book = Book(pool, stream, learned)
    ahead = Ahead(most_segments=10_000)
    ahead.own(0, 0)
    turnstile = Turnstile(own_cores=pool.cores, concurrent=4, clock=clock)
    minds = Minds(book.fit)
    foresight = Foresight(book, ahead, minds, turnstile, limit_seconds=lambda _: BUFFER_SECONDS, clock=clock)
    switcher = Switcher(book, ahead, minds, foresight)
    pipeline: Pipeline = OneKnob()
    first_event = split * SEGMENT_SECONDS
    count = trace.segments - split
    arrived = 0
    quality = work = longest = 0.0
    rules = {name: 0 for name in report_pb2.Rule.keys()}  # noqa: SIM118 - an enum wrapper, no mapping
    for t in range(count):
        arrival = (t + 1) * SEGMENT_SECONDS
        clock.seconds = max(turnstile._pool.free_at_seconds, arrival)
        while arrived < count and (arrived + 1) * SEGMENT_SECONDS <= clock.seconds:
            ahead.add(0, line(trace, split, arrived, first_event))
            arrived += 1
        if t % REFRESH_SEGMENTS == 0:
            foresight.refresh()
        turn = turnstile.enter(0, arrived_seconds=arrival, refused=False, closed=lambda: False)
        assert turn is not None
        decided = switcher.choose(line(trace, split, t, first_event), 0, pipeline, {"level": 0}, turn)
        turn.begin(decided.estimated_core_seconds)
        assert decided.report is not None
        rules[report_pb2.Rule.Name(decided.report.rule)] += 1
        turn.measured_core_seconds = float(trace.work_core_seconds[split + t, decided.index])
        reported = float(trace.quality[split + t, decided.index])
        switcher.learn(decided, quality=reported, core_seconds=turn.measured_core_seconds)
        turn.end()
        quality += reported
        work += turn.measured_core_seconds
        longest = max(longest, turn.start_seconds - arrival)
    return {"quality": quality / count, "core_seconds": work, "longest_wait": longest} | rules


def line(trace: Trace, split: int, t: int, first_event: float) -> Seen:
    return Seen(
        offset=t,
        stream_id=STREAM,
        arrived_seconds=(t + 1) * SEGMENT_SECONDS,
        event_seconds=first_event + t * SEGMENT_SECONDS,
        duration_seconds=SEGMENT_SECONDS,
        size_bytes=1,
        features={f"f{index}": float(value) for index, value in enumerate(trace.features[split + t])},
    )


@pytest.mark.parametrize("kind", ["diurnal", "bursty"])
def test_a_live_day_is_worth_what_the_simulator_says(kind: str) -> None:
    trace = generate(kind, days=DAYS, seed=3, segment_seconds=SEGMENT_SECONDS)
    cores = 0.2 * float(trace.work_core_seconds[:, -1].mean()) / SEGMENT_SECONDS
    study = Study([trace], train_fraction=TRAIN)
    said = study.run("priced", Resources(cores, BUFFER_SECONDS))
    split = round(trace.segments * TRAIN)
    learned = learn(trace, split)
    ran = live(trace, split, learned, plan(learned, cores))
    assert ran["quality"] == pytest.approx(said.mean_quality, rel=0.02)
    assert ran["core_seconds"] == pytest.approx(said.core_seconds, rel=0.09)
    assert ran["longest_wait"] <= BUFFER_SECONDS
    assert ran["RULE_PRICED"] > 0.9 * (trace.segments - split)
