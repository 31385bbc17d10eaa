"""Telling the other services what a pipeline's rows look like: the compacted topic sky.profiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, Message, Producer
from google.protobuf.message import DecodeError

from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.pipeline import Pipeline
from skyscraper.v1 import profile_pb2


def describe(pipeline: Pipeline) -> profile_pb2.Profile:
    """What the pipeline itself says: its knobs and the shape of its rows."""
    return profile_pb2.Profile(
        pipeline=pipeline.name,
        version=pipeline.version,
        row_schema=pipeline.row_schema.to_proto(),
        knobs=[
            profile_pb2.Knob(
                name=knob.name,
                domain=[str(value) for value in knob.domain],
                default_value=str(knob.default),
                description=knob.description,
            )
            for knob in pipeline.knobs
        ],
    )


def register_pipeline(client: Mapping[str, Any], pipeline: Pipeline, *, deadline_seconds: float = 30.0) -> None:
    """Write the pipeline's profile. Raises BusTimeout."""
    profile = describe(pipeline)
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({**client, "enable.idempotence": True})
    producer.produce(
        topics.PROFILES, profile.SerializeToString(deterministic=True), pipeline.name.encode(), on_delivery=delivered
    )
    if producer.flush(deadline_seconds) or failed:
        raise BusTimeout(
            f"the profile of {pipeline.name} cannot be written: {failed[0].str() if failed else 'no answer'}"
        )


def read_profiles(client: Mapping[str, Any], *, deadline_seconds: float) -> dict[str, profile_pb2.Profile]:
    """The registered profiles by pipeline. Raises BusTimeout, and BusError where the topic is missing or unreadable."""
    tables = read_compacted(client, topics.PROFILES, deadline_seconds=deadline_seconds)
    found = {}
    for key, value in (row for table in tables.values() for row in table.items()):
        name = key.decode(errors="replace")
        try:
            found[name] = profile_pb2.Profile.FromString(value)
        except DecodeError as error:
            raise BusError(f"{topics.PROFILES}, key {name}: not a Profile: {error}") from error
    return found
