"""The inference service's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from skyscraper.paths import cache_dir
from skyscraper.rpc.tls import ServerTls
from skyscraper.service.config import ServiceConfig, Settings


class WarmupShape(Settings):
    """An input shape that is run in every batch size before the model counts as ready."""

    height: int = Field(ge=1, description="Pixels.")
    width: int = Field(ge=1, description="Pixels.")


class InferenceServiceConfig(ServiceConfig):
    """Settings of one inference process."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_INFERENCE_"

    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 in a container.")
    port: int = Field(8001, ge=0, le=65535, description="gRPC port; 0 picks a free one and logs it. Triton's is 8001.")
    port_file: Path | None = Field(None, description="Where to write the port once the service is ready.")
    tls: ServerTls | None = Field(None, description="None serves in clear text: only inside a trusted network.")
    repository: Path = Field(
        default_factory=lambda: cache_dir() / "models", description="Model repository in Triton's layout."
    )
    models: tuple[str, ...] = Field((), description="Which models to serve; empty serves all of the repository.")
    instances: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Batches run at once, each on one core: the cheapest way to spend a core-second.",
    )
    stages: tuple[str, ...] = Field(
        (),
        description="Pipelines whose stateless operators are served on whole segments, as `segment.<pipeline>`: for "
        "burst machines, to which compressed segments are sent.",
    )
    cloud: Literal["none", "aws", "google", "azure"] = Field(
        "none", description="Whose metadata server tells that this spot machine will be taken away; none: only SIGTERM."
    )
    cloud_metadata_url: str | None = Field(None, description="Another metadata server than the cloud's own.")
    execution_providers: tuple[str, ...] = Field(
        ("CPUExecutionProvider",), min_length=1, description="ONNX Runtime's, in order of preference."
    )
    max_batch: int = Field(8, ge=1, description="Rows per batch; a model's own max_batch_size may lower it.")
    max_window_seconds: float = Field(0.05, ge=0, description="Longest time a batch waits to fill.")
    queue_bytes: int = Field(
        256 * 1024 * 1024, gt=0, description="Input tensors waiting; beyond it requests are refused."
    )
    max_message_bytes: int = Field(64 * 1024 * 1024, gt=0, description="Largest gRPC message taken.")
    max_requests: int = Field(512, ge=1, description="Requests inside at once; each holds a thread while it waits.")
    max_connection_age_seconds: float = Field(
        120.0,
        ge=1,
        description="Connections are closed, without harm to their requests, after about so long: clients that balance "
        "over a name's addresses look it up again then and find servers that were added.",
    )
    warmup_shapes: tuple[WarmupShape, ...] = Field(
        (WarmupShape(height=320, width=320),), description="Image sizes to run before the service is ready."
    )

    @model_validator(mode="after")
    def _a_message_fits_the_queue(self) -> InferenceServiceConfig:
        if self.max_message_bytes > self.queue_bytes:
            raise ValueError(
                f"max_message_bytes ({self.max_message_bytes}) is larger than queue_bytes ({self.queue_bytes}): such a "
                "request could never be taken; raise queue_bytes or lower max_message_bytes"
            )
        return self
