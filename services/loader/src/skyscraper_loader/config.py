"""The loader's configuration."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from skyscraper.lakehouse.catalog import CatalogConfig
from skyscraper.service.config import KafkaConfig, ServiceConfig, Settings


class MaintenanceConfig(Settings):
    """How the tables are kept small."""

    interval_seconds: float = Field(
        60.0, gt=0, description="How often small files are merged and old snapshots forgotten."
    )
    keep_snapshots_seconds: float = Field(
        600.0, gt=0, description="How long a snapshot is kept after it was replaced; longer than any query takes."
    )
    delete_after_seconds: float = Field(
        900.0, gt=0, description="Age at which unreferenced files are deleted; longer than any commit takes."
    )


class LoaderConfig(ServiceConfig):
    """Settings of one loader process."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_LOADER_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="How to reach Kafka.")
    catalog: CatalogConfig = Field(default_factory=CatalogConfig, description="Where the tables are.")
    group: str = Field("sky-loader", description="Consumer group; loaders of one group share the partitions.")
    pipelines: tuple[str, ...] = Field(
        (), description="Whose rows to load; empty loads every pipeline in sky.profiles."
    )
    session_timeout_seconds: float = Field(10.0, ge=1, description="A loader silent for so long loses its partitions.")
    commit_interval_seconds: float = Field(
        1.0, gt=0, description="Longest time a row waits for its Iceberg commit; shorter means more small files."
    )
    max_rows: int = Field(
        200_000, ge=1, description="Messages that force a commit before the interval is over; no more are held."
    )
    max_bytes: int = Field(
        64 * 1024 * 1024,
        gt=0,
        description="JSON bytes that force a commit before the interval is over; no more are held.",
    )
    maintenance: MaintenanceConfig = Field(
        default_factory=MaintenanceConfig, description="How the tables are kept small."
    )
