"""The decoder's configuration."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from skyscraper.rpc.tls import ClientTls
from skyscraper.service.config import KafkaConfig, ServiceConfig, Settings


class InferenceConfig(Settings):
    """How to reach the inference service."""

    target: str = Field("127.0.0.1:8001", description="gRPC target; dns:///name:port balances over all addresses.")
    tls: ClientTls | None = Field(None, description="None speaks in clear text: only inside a trusted network.")
    max_rows: int = Field(8, ge=1, description="Frames per request; the server batches across requests by itself.")
    call_seconds: float = Field(
        10.0, gt=0, description="Deadline of one request, its time in the server's queue included."
    )
    retry_seconds: float = Field(
        30.0,
        gt=0,
        description="How long one step retries a busy or absent server before the stream backs off and logs.",
    )


class ControlConfig(Settings):
    """The choice of configurations."""

    pool_cores: float | None = Field(
        None,
        gt=0,
        description="Core-seconds per second, here and in inference, that this decoder's streams may take while no "
        "plan says so. Left out, they take what the machines give, and the guard counts this machine's CPUs.",
    )
    concurrent_segments: int = Field(
        16, ge=1, description="Segments in work at once, of all streams; bounds memory, and lets inference batch."
    )
    limit_seconds: float | None = Field(
        None, gt=0, description="Longest that a segment may wait in the buffer; left out, Kafka's retention says."
    )
    retention_safety: float = Field(
        0.8, gt=0, le=1, description="Part of Kafka's retention that the guard lets the backlog fill."
    )
    look_ahead_segments: int = Field(
        10_000, ge=0, description="Segments of each stream that are read ahead, headers only; about 500 bytes each."
    )


class BurstClientConfig(Settings):
    """How to reach the burst gateways."""

    targets: tuple[str, ...] = Field(
        (), description="gRPC targets of the gateways, the standby's too; none: everything runs in the pool."
    )
    tls: ClientTls | None = Field(None, description="None speaks in clear text: only inside a trusted network.")
    in_flight_bytes: int = Field(
        64 * 1024 * 1024, gt=0, description="Compressed segments under way at once; beyond it the pool is next."
    )
    most_seconds: float = Field(
        30.0, gt=0, description="Longest that a segment may be away; with the price, what it can cost at most."
    )
    longest_segments: float = Field(
        1.0,
        gt=0,
        description="A segment is not sent away where that should take longer than so many times its own length: a "
        "stream's segments go one after the other, and it would fall behind.",
    )
    round_trip_seconds: float = Field(
        0.2, ge=0, description="What an answer takes beside its work, until that has been measured."
    )


class DecoderConfig(ServiceConfig):
    """Settings of one decoder process."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_DECODER_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="How to reach Kafka.")
    inference: InferenceConfig = Field(default_factory=InferenceConfig, description="How to reach inference.")
    burst: BurstClientConfig = Field(default_factory=BurstClientConfig, description="How to reach burst machines.")
    control: ControlConfig = Field(default_factory=ControlConfig, description="How configurations are chosen.")
    group: str = Field("sky-decoder", description="Consumer group; all decoders of an installation share it.")
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="classic is cooperative-sticky; consumer is KIP-848, whose timeouts the broker sets."
    )
    session_timeout_seconds: float = Field(
        10.0, ge=1, description="A decoder silent for so long loses its streams to the others (classic protocol)."
    )
    default_pipeline: str | None = Field(
        "counting", description="Pipeline of streams that are not registered in sky.streams; none refuses them."
    )
    commit_interval_seconds: float = Field(
        0.5, gt=0, description="Longest time a finished segment waits for its transaction; adds to latency."
    )
    transaction_timeout_seconds: float = Field(
        30.0, gt=0, description="The broker aborts a transaction of a dead decoder after this; state waits for it."
    )
    queue_bytes: int = Field(
        8 * 1024 * 1024, gt=0, description="Compressed segments fetched ahead per stream; the backlog stays in Kafka."
    )
    uncommitted_segments: int = Field(
        16, ge=1, description="Finished segments per stream that may wait for a transaction before the stream pauses."
    )

    @model_validator(mode="after")
    def _commit_fits_the_transaction(self) -> DecoderConfig:
        if self.commit_interval_seconds >= self.transaction_timeout_seconds:
            raise ValueError(
                f"commit_interval_seconds ({self.commit_interval_seconds:g}) must be below transaction_timeout_seconds "
                f"({self.transaction_timeout_seconds:g}): lower the first or raise the second"
            )
        return self
