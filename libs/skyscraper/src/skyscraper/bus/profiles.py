"""Telling the other services what is known of a pipeline, its rows and its fits: the compacted topic sky.profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from google.protobuf.message import DecodeError

from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.pipeline import Pipeline
from skyscraper.v1 import profile_pb2

# No pipeline's name holds it: they name topics, too.
VERSION_MARK = "#"
_DEADLINE_SECONDS = 30.0


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


def profile_key(pipeline: str, fit_version: str) -> bytes:
    """Under which sky.profiles holds one particular fit; the newest in force is under the pipeline's name alone."""
    return f"{pipeline}{VERSION_MARK}{fit_version}".encode()


def is_versioned(key: bytes) -> bool:
    """Whether a key of sky.profiles names one particular fit, not the pipeline as it is now."""
    return VERSION_MARK.encode() in key


def publish_profile(
    client: Mapping[str, Any],
    profile: profile_pb2.Profile,
    *,
    current: bool = True,
    deadline_seconds: float = _DEADLINE_SECONDS,
) -> None:
    """Write a profile with a fit under its version, and, if `current`, as what the pipeline is now.

    The version goes first: whoever is told to use it finds it. Raises BusError for a profile without a fit, BusTimeout.
    """
    if not profile.HasField("fit") or not profile.fit.version:
        raise BusError(f"the profile of {profile.pipeline} holds no fit: make one with `skyscraper fit`")
    value = profile.SerializeToString(deterministic=True)
    keys = [profile_key(profile.pipeline, profile.fit.version)]
    if current:
        keys.append(profile.pipeline.encode())
    _write(client, profile.pipeline, [(key, value) for key in keys], deadline_seconds)


def register_pipeline(
    client: Mapping[str, Any], pipeline: Pipeline, *, deadline_seconds: float = _DEADLINE_SECONDS
) -> None:
    """Write what the pipeline says of itself; what was learned of it before stays. Raises BusTimeout."""
    profile = describe(pipeline)
    key = pipeline.name.encode()
    for table in read_compacted(client, topics.PROFILES, deadline_seconds=deadline_seconds).values():
        if key in table:
            _keep_fit(profile, table[key])
    _write(client, pipeline.name, [(key, profile.SerializeToString(deterministic=True))], deadline_seconds)


def _keep_fit(profile: profile_pb2.Profile, before: bytes) -> None:
    try:
        known = profile_pb2.Profile.FromString(before)
    except DecodeError:
        # Damage is replaced.
        return
    if known.HasField("fit"):
        profile.fit.CopyFrom(known.fit)


def _write(
    client: Mapping[str, Any], pipeline: str, records: Sequence[tuple[bytes, bytes]], deadline_seconds: float
) -> None:
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer({**client, "enable.idempotence": True, "message.max.bytes": topics.MAX_MESSAGE_BYTES})
    for key, value in records:
        try:
            producer.produce(topics.PROFILES, value, key, on_delivery=delivered)
        except KafkaException as error:
            raise BusError(
                f"the profile of {pipeline} has {len(value)} bytes and cannot be written: {error.args[0].str()}; "
                f"{topics.MAX_SEGMENT_BYTES} are the most"
            ) from error
    if producer.flush(deadline_seconds) or failed:
        raise BusTimeout(f"the profile of {pipeline} cannot be written: {failed[0].str() if failed else 'no answer'}")


def read_profiles(client: Mapping[str, Any], *, deadline_seconds: float) -> dict[str, profile_pb2.Profile]:
    """The registered profiles by pipeline. Raises BusTimeout, and BusError where the topic is missing or unreadable."""
    tables = read_compacted(client, topics.PROFILES, deadline_seconds=deadline_seconds)
    found = {}
    for key, value in (row for table in tables.values() for row in table.items()):
        name = key.decode(errors="replace")
        if is_versioned(key):
            continue
        try:
            found[name] = profile_pb2.Profile.FromString(value)
        except DecodeError as error:
            raise BusError(f"{topics.PROFILES}, key {name}: not a Profile: {error}") from error
    return found
