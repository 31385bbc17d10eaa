"""The publisher's settings: streams are data."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from skyscraper.bus.topics import MAX_SEGMENT_BYTES, is_stream_id
from skyscraper.service import KafkaConfig, ServiceConfig
from skyscraper.service.config import Settings


def default_spill_folder() -> Path:
    """Not the cache: what waits here exists nowhere else."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "skyscraper" / "spill"


class StreamConfig(Settings):
    """One camera."""

    id: str = Field(description="The stream id: a-z, 0-9, dot and dash, at most 63 characters.")
    source: SecretStr = Field(
        description="URL, file, directory, device (/dev/video0) or street:…; shown without credentials."
    )
    pipeline: str = Field("", description="Pipeline that turns it into rows; empty leaves what is registered.")
    tenant: str = Field("", description="Who pays for it; empty leaves what is registered.")
    weight: float = Field(0.0, ge=0, description="Importance relative to other streams; 0 leaves what is registered.")
    configuration: dict[str, str] = Field(
        default_factory=dict, description="Fixed knob values, by knob name; the others take the pipeline's default."
    )
    partition: int | None = Field(
        None, ge=0, description="Partition of sky.segments; left out, the registered or the lowest free one."
    )
    loop: bool = Field(False, description="Start a file or directory again when it ends.")
    watch: bool = Field(False, description="Wait for new files in a directory for ever.")
    pace: Literal["real", "max"] | float = Field(
        "real",
        description="How fast files are published: real, max (as fast as Kafka takes them; the file waits for the "
        "broker), or a factor of real time.",
    )
    start_time: datetime | None = Field(
        None, description="Wall clock of the first frame, for runs that are to be repeated exactly; with time zone."
    )
    epoch: int | None = Field(None, ge=0, description="Fixed epoch instead of the time of opening, for tests.")
    max_segments: int | None = Field(None, gt=0, description="Stop the stream after so many segments.")
    segment_seconds: float = Field(
        2.0, gt=0, le=60, description="Least length of a segment; it ends at the next closed GOP."
    )
    max_open_seconds: float = Field(
        10.0,
        gt=0,
        le=300,
        description="After so long without a closed GOP, cut at an open one; its leading pictures are dropped.",
    )
    look: bool = Field(
        True,
        description="Decode the first few frames of a segment for features of what moves, with at most 5 % of a core; "
        "without them a segment's quality is predicted from its packets alone.",
    )

    @field_validator("id")
    @classmethod
    def _id_is_a_stream_id(cls, value: str) -> str:
        if not is_stream_id(value):
            raise ValueError(
                f"{value!r} is not a stream id: use a-z, 0-9, dot and dash, starting with a letter or digit, "
                "at most 63 characters"
            )
        return value

    @field_validator("pace")
    @classmethod
    def _pace_is_positive(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise ValueError(f"a pace of {value} is no speed: use real, max or a positive factor")
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> StreamConfig:
        if self.loop and self.watch:
            raise ValueError("loop and watch are both set: a watched directory never ends, so remove loop")
        if self.start_time is not None and self.start_time.tzinfo is None:
            raise ValueError(f"start_time {self.start_time} has no time zone: append Z for UTC")
        return self


class SpillConfig(Settings):
    """Where segments wait while the broker is away."""

    folder: Path = Field(
        default_factory=default_spill_folder, description="Folder on a local disk; one folder a stream."
    )
    max_bytes_per_stream: int = Field(
        2 * 1024**3,
        ge=MAX_SEGMENT_BYTES,
        description="Bound on disk per stream; at 2 Mbit/s the default is over two hours. Full: new segments are "
        "dropped and counted.",
    )
    after_seconds: float = Field(
        3.0, gt=0, description="An unacknowledged segment of this age means that the broker is away."
    )
    fsync: bool = Field(False, description="Survive power cuts too, at one disk flush per spilled segment.")


class InputConfig(Settings):
    """Patience with cameras."""

    open_seconds: float = Field(10.0, gt=0, description="Longest wait for a camera to answer.")
    read_seconds: float = Field(10.0, gt=0, description="Longest silence of a connected camera.")
    backoff_seconds: float = Field(
        0.5, gt=0, description="First wait before connecting again; doubles, fully jittered."
    )
    backoff_max_seconds: float = Field(30.0, gt=0, description="Longest wait before connecting again.")


class PublisherConfig(ServiceConfig):
    """Settings of the publisher."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_PUBLISHER_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="The broker.")
    streams: tuple[StreamConfig, ...] = Field((), description="Cameras of its own; more come with `follow`.")
    follow: bool = Field(
        False,
        description="Capture the streams in sky.streams that name this `instance` as their publisher, as they come, "
        "change and go, without a restart.",
    )
    credentials: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Of cameras in sky.streams, by host or host:port: "user:password". Never printed, never in Kafka.',
    )
    credentials_file: Path | None = Field(
        None, description="A TOML file with more of them, such as a mounted secret; read again when it changes."
    )
    spill: SpillConfig = Field(default_factory=SpillConfig, description="Broker away.")
    input: InputConfig = Field(default_factory=InputConfig, description="Camera away.")
    memory_bytes_per_stream: int = Field(
        4 * 1024**2,
        gt=0,
        description="Unacknowledged segments kept in memory per stream, at least one; more goes to disk.",
    )
    register_seconds: float = Field(15.0, gt=0, description="Longest single attempt to register the streams.")

    @field_validator("credentials")
    @classmethod
    def _credentials_are_pairs(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for host, secret in value.items():
            user, colon, _ = secret.get_secret_value().partition(":")
            if not (user and colon):
                raise ValueError(f'the credentials of {host} are not of the form "user:password"')
        return value

    @model_validator(mode="after")
    def _there_is_something_to_do(self) -> PublisherConfig:
        if not self.streams and not self.follow:
            raise ValueError("there are no streams: name some under [[streams]], or set follow = true")
        return self

    @model_validator(mode="after")
    def _ids_are_unique(self) -> PublisherConfig:
        ids = [stream.id for stream in self.streams]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"streams named more than once: {', '.join(twice)}; give each camera its own id")
        return self
