"""A made-up installation for the views: streams, a profile, plans and reports, as services would write them."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from confluent_kafka import Producer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType
from skyscraper.bus import topics
from skyscraper.bus.admin import create_topics
from skyscraper.bus.reports import Seen
from skyscraper.bus.topics import topic_specs
from skyscraper.profile.arrays import to_proto
from skyscraper.v1 import plan_pb2, profile_pb2, report_pb2, stream_pb2

PIPELINE = "counting"
FIT = "f00dfeed12345678"
MEAN_QUALITY = (1.2, 2.6, 3.4, 4.0, 4.3)
CORES = (0.02, 0.08, 0.2, 0.6, 1.4)
KNOBS = (("1", "160"), ("2", "224"), ("5", "320"), ("10", "416"), ("15", "608"))
SEGMENT_SECONDS = 2.0
SEGMENT_BYTES = 250_000


def stamp(seconds: float) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return found


def profile() -> profile_pb2.Profile:
    return profile_pb2.Profile(
        pipeline=PIPELINE,
        version="1",
        knobs=[profile_pb2.Knob(name=name) for name in ("model", "frame_rate", "input_size")],
        fit=profile_pb2.Fit(
            version=FIT,
            segment_seconds=SEGMENT_SECONDS,
            configurations=[
                profile_pb2.Configuration(
                    knobs={"model": "nanodet-g", "frame_rate": rate, "input_size": size},
                    mean_quality=quality,
                    core_seconds_per_second=cores,
                    work_uncertainty=0.2,
                )
                for quality, cores, (rate, size) in zip(MEAN_QUALITY, CORES, KNOBS, strict=True)
            ],
            categories=profile_pb2.Categories(centres=to_proto(np.ones((3, 5))), share=to_proto(np.ones(3) / 3)),
        ),
    )


def pool_plan(now: float, *, cores: float = 4.0, version: int = 17, age: float = 34.0) -> plan_pb2.Plan:
    """Dearer by day than by night, and with the lag."""
    slots, limit = 288, 3_600.0
    lags = limit * np.linspace(0, 1, 16) ** 2
    hour = np.arange(slots) / 12
    day = 0.3 + 0.7 * np.exp(-(((hour - 17) / 4) ** 2)) + 0.5 * np.exp(-(((hour - 8) / 2) ** 2))
    price = day[:, None, None] * np.array([0.5, 1.0, 1.6])[None, :, None] * (0.05 + (lags / limit) ** 0.5)
    return plan_pb2.Plan(
        version=version,
        made_time=stamp(now - age),
        lease_seconds=600,
        pool=plan_pb2.PoolPlan(
            cores=cores,
            limit_seconds=limit,
            day_seconds=86_400,
            slot_seconds=300,
            segment_seconds=SEGMENT_SECONDS,
            grid=to_proto(np.linspace(0, 2, 8)),
            lags=to_proto(lags),
            price=to_proto(price),
            after=to_proto(-price),
            edges=to_proto(np.array([1.0, 2.0])),
            last_need=1.5,
            usd_price=0.2,
            usd_curve=to_proto(np.linspace(0, 1, slots + 1)),
            usd_per_day=5.0,
        ),
    )


def stream_plan(name: str, *, version: int = 17, **fields: object) -> plan_pb2.Plan:
    alpha = np.array([[0.9, 0.1, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0, 0.3, 0.7]])
    own = plan_pb2.StreamPlan(
        stream_id=name,
        pipeline=PIPELINE,
        profile_version=FIT,
        policy=plan_pb2.POLICY_PRICED,
        value_scale=1 / MEAN_QUALITY[-1],
        cores=0.5,
        work_scale=1.1,
        alpha=to_proto(alpha),
        category_share=[0.5, 0.3, 0.2],
        expected_quality=3.4,
        drift_error=1.1,
    )
    own.MergeFrom(plan_pb2.StreamPlan(**fields))  # type: ignore[arg-type]
    return plan_pb2.Plan(version=version, stream=own)


def entry(name: str, partition: int, **fields: object) -> stream_pb2.Stream:
    found = stream_pb2.Stream(
        stream_id=name,
        pipeline=PIPELINE,
        partition=partition,
        state=stream_pb2.STREAM_STATE_ACTIVE,
        source="rtsp://camera/stream",
    )
    found.MergeFrom(stream_pb2.Stream(**fields))  # type: ignore[arg-type]
    return found


def report(
    name: str,
    partition: int,
    offset: int,
    committed: float,
    *,
    configuration: int = 2,
    rule: report_pb2.Rule.ValueType = report_pb2.RULE_PRICED,
    lag: float = 3.0,
    slack: float | None = None,
    work_price: float = 0.25,
    quality: float = 3.2,
    decided: bool = True,
) -> Seen:
    """A processed segment whose report was committed then."""
    rate, size = KNOBS[configuration]
    found = report_pb2.SegmentReport(
        stream_id=name,
        pipeline=PIPELINE,
        segment_id=f"{name}/1764000000/{offset}",
        partition=partition,
        offset=offset,
        outcome=report_pb2.OUTCOME_PROCESSED,
        event_time=stamp(committed - lag - 2 * SEGMENT_SECONDS),
        duration_seconds=SEGMENT_SECONDS,
        segment_bytes=SEGMENT_BYTES,
        configuration={"model": "nanodet-g", "frame_rate": rate, "input_size": size},
        quality=quality,
        rows=7,
        decoder_core_seconds=0.1 * CORES[configuration] * SEGMENT_SECONDS,
        inference_core_seconds=0.9 * CORES[configuration] * SEGMENT_SECONDS,
        published_time=stamp(committed - lag - SEGMENT_SECONDS),
        started_time=stamp(committed - 0.5),
        finished_time=stamp(committed - 0.1),
    )
    if decided:
        found.decision.CopyFrom(
            report_pb2.Decision(
                rule=rule,
                configuration=configuration,
                profile_version=FIT,
                plan_version=17,
                predicted_quality=[quality * one / MEAN_QUALITY[configuration] for one in MEAN_QUALITY],
                value_scale=1 / MEAN_QUALITY[-1],
                estimated_core_seconds=[one * SEGMENT_SECONDS * 1.1 for one in CORES],
                lag_seconds=lag,
                slack_core_seconds=(3_600 - lag) * 0.5 / 1.2 if slack is None else slack,
                work_price=work_price,
                category=1,
                backlog_seconds=lag,
            )
        )
    return Seen(found, committed)


def lost(name: str, partition: int, offset: int, committed: float, count: int) -> Seen:
    """What the decoder reports of a gap: `name` empty where it cannot tell the stream."""
    return Seen(
        report_pb2.SegmentReport(
            stream_id=name,
            partition=partition,
            offset=offset,
            outcome=report_pb2.OUTCOME_LOST,
            reason="retention",
            missing_before=count,
            duration_seconds=2.0 * count,
        ),
        committed,
    )


@dataclass
class MadeUp:
    """What Kafka would hold."""

    now: float
    streams: dict[str, stream_pb2.Stream] = field(default_factory=dict)
    pool: plan_pb2.Plan | None = None
    plans: dict[str, plan_pb2.Plan] = field(default_factory=dict)
    profile: profile_pb2.Profile | None = None
    reports: list[Seen] = field(default_factory=list)
    """In order of their times."""
    ends: dict[int, int] = field(default_factory=dict)
    """Of sky.segments by partition, where segments wait: the others end with the newest report."""


def fleet(now: float, count: int, *, minutes: float = 3.0) -> MadeUp:
    """`count` streams that report every two seconds; among the first ten one of every kind of trouble."""
    made = MadeUp(now, pool=pool_plan(now, cores=max(4.0, count / 4)), profile=profile())
    for number in range(count):
        name = f"gate-{number}" if number % 3 else f"north-entrance-{number}"
        made.streams[name] = entry(name, number)
        made.plans[name] = stream_plan(name)
        kind = number if number < 10 else 0
        steps = int(minutes * 60 / SEGMENT_SECONDS)
        last = now - 200.0 if kind == 6 else now - 1.0
        if kind == 9:
            continue
        for step in range(steps):
            committed = last - (steps - 1 - step) * SEGMENT_SECONDS
            seen = report(name, number, step, committed, quality=3.0 + 0.1 * (step % 5))
            if kind == 1:
                seen = report(
                    name, number, step, committed, rule=report_pb2.RULE_GUARDED, configuration=1, lag=3_000, slack=0.3
                )
            elif kind == 2:
                seen = report(
                    name,
                    number,
                    step,
                    committed,
                    rule=report_pb2.RULE_FLOOR,
                    configuration=0,
                    lag=3_700,
                    slack=-4,
                    quality=0.9,
                )
            elif kind == 5:
                seen = report(name, number, step, committed, configuration=0, quality=1.0)
            elif kind == 8:
                seen = report(name, number, step, committed, decided=False)
            made.reports.append(seen)
        made.ends[number] = steps
        if kind == 1:
            made.ends[number] += 1_500
        elif kind == 2:
            made.ends[number] += 1_850
        elif kind == 3:
            made.reports.append(lost(name, number, steps, now - 5, 12))
            made.ends[number] += 12
        elif kind == 4:
            made.streams[name].state = stream_pb2.STREAM_STATE_PAUSED
        elif kind == 5:
            made.plans[name].stream.refused = True
            made.plans[
                name
            ].stream.refusal = "the cheapest configurations alone take 4.1 cores, and the pool has 4: add 0.1 cores"
        elif kind == 6:
            made.ends[number] += 100
        elif kind == 7:
            made.plans[name].stream.drifted = True
            made.plans[name].stream.drift_error = 2.7
    made.reports.sort(key=lambda one: one.committed_seconds)
    return made


def rendered(shown: RenderableType, width: int) -> str:
    """As a terminal of that width shows it, without colours."""
    file = io.StringIO()
    Console(file=file, width=width, no_color=True, highlight=False).print(shown)
    return file.getvalue()


def publish(client: dict[str, Any], made: MadeUp, *, partitions: int) -> None:
    """Create the topics and write everything, reports with their times."""
    specs = topic_specs(
        partitions=partitions, pipelines=[PIPELINE], retention_seconds=21_600, retention_bytes_per_partition=1 << 30
    )
    create_topics(client, specs, replication_factor=1)
    producer = Producer({**client, "linger.ms": 20})
    tables: list[tuple[str, str, Message]] = [(topics.STREAMS, name, stream) for name, stream in made.streams.items()]
    tables += [(topics.PLANS, name, plan) for name, plan in made.plans.items()]
    if made.pool is not None:
        tables.append((topics.PLANS, topics.POOL_KEY.decode(), made.pool))
    if made.profile is not None:
        tables += [(topics.PROFILES, PIPELINE, made.profile), (topics.PROFILES, f"{PIPELINE}#{FIT}", made.profile)]
    for topic, key, message in tables:
        producer.produce(topic, message.SerializeToString(), key)
    # Only their number matters here.
    for partition, end in made.ends.items():
        for _ in range(end):
            producer.produce(topics.SEGMENTS, b"segment", b"", partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0
    # Not in transactions: their markers would carry the present time, by which Kafka then finds offsets.
    for one in made.reports:
        _produce(producer, one)
        producer.poll(0)
    assert producer.flush(60) == 0


def write_reports(client: dict[str, Any], reports: list[Seen]) -> None:
    """In one transaction, as decoders do."""
    producer = Producer({**client, "transactional.id": f"made-up-{uuid.uuid4()}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for one in reports:
        _produce(producer, one)
    producer.commit_transaction(60)


def _produce(producer: Producer, one: Seen) -> None:
    producer.produce(
        topics.REPORTS,
        one.report.SerializeToString(),
        one.report.stream_id,
        partition=one.report.partition,
        timestamp=int(one.committed_seconds * 1000),
    )
