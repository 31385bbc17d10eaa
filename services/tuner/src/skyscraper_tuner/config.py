"""The tuner's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator
from skyscraper.profile.refit import FEWEST_SAMPLES
from skyscraper.service.config import KafkaConfig, ServiceConfig, Settings

# A slot of fewer seconds than any camera's two segments tells nothing.
_SHORTEST_SLOT_SECONDS = 1.0


class RefitConfig(Settings):
    """How predictors are learned anew from what was seen online."""

    enabled: bool = Field(True, description="Whether they are; drift is watched and told either way.")
    interval_seconds: float = Field(
        86_400.0, gt=0, description="A pipeline's predictors are learned anew so often; at once where it has drifted."
    )
    fewest_samples: int = Field(400, ge=FEWEST_SAMPLES, description="Sampled segments that a re-fit needs.")
    most_samples: int = Field(8_000, ge=FEWEST_SAMPLES, description="The newest so many are learned from.")
    give_up_segments: int = Field(
        2_000, ge=500, description="A trial that is not clearly better after so many sampled segments ends."
    )

    @model_validator(mode="after")
    def _most_is_more(self) -> RefitConfig:
        if self.most_samples < self.fewest_samples:
            raise ValueError(
                f"most_samples ({self.most_samples}) is below fewest_samples ({self.fewest_samples}): raise the first "
                "or lower the second"
            )
        return self


class TenantQuota(Settings):
    """What a tenant's streams may use."""

    cores: float | None = Field(
        None, gt=0, description="The cheapest configurations of its streams must fit in so many; none: the whole pool."
    )
    usd_per_day: float = Field(0.0, ge=0, description="Dollars for burst machines, per day of the content.")


class TunerConfig(ServiceConfig):
    """Settings of one tuner process."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_TUNER_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="How to reach Kafka.")
    pool_cores: float = Field(gt=0, description="Cores of the pool that all streams share: decoders and inference.")
    policy: Literal["priced", "skyscraper"] = Field(
        "priced", description="priced: shadow prices; skyscraper: the paper's planner and switcher."
    )
    group: str = Field(
        "sky-tuner",
        pattern=r"^[a-zA-Z0-9._-]{1,100}$",
        description="Consumer group; also the name of the planners' election and of the table's changelog topic.",
    )
    session_timeout_seconds: float = Field(
        6.0, ge=6, le=12, description="A tuner silent for so long loses its partitions, or the planning, to another."
    )
    plan_interval_seconds: float = Field(30.0, gt=0, description="Plans are made anew so often.")
    lease_seconds: float = Field(180.0, gt=0, description="A plan without a successor for so long is called stale.")
    limit_seconds: float | None = Field(
        None, gt=0, description="Longest time a segment may wait; none: from the retention of sky.segments."
    )
    limit_safety: float = Field(
        0.8, gt=0, le=1, description="Part of the retention that may be used; the rest is for outages."
    )
    day_seconds: float = Field(
        86_400.0,
        gt=0,
        description="After so long the content comes again; shorter for demonstrations, where profiles' days are "
        "shown faster.",
    )
    slot_seconds: float = Field(300.0, ge=_SHORTEST_SLOT_SECONDS, description="Prices and statistics are kept by slot.")
    history_days: int = Field(8, ge=1, le=60, description="Days of the content that statistics are kept for.")
    samples_per_slot: int = Field(
        4, ge=1, le=64, description="Segments per stream and slot kept whole to learn from; about 0.4 KB each."
    )
    usd_per_day: float = Field(
        0.0, ge=0, description="Dollars for burst machines of each tenant that has no entry in tenants."
    )
    burst_usd_per_core_hour: float | None = Field(
        None, gt=0, description="Price of a burst core that is planned with until one was paid; none: the profile's."
    )
    tenants: dict[str, TenantQuota] = Field(default_factory=dict, description="Quotas by tenant.")
    refit: RefitConfig = Field(default_factory=RefitConfig, description="How predictors are learned anew.")
    state_folder: Path = Field(
        Path("out/tuner"), description="Scratch space of the stream processor; nothing in it is needed after a stop."
    )
    seed: int = Field(0, ge=0, description="The same reports and seed give the same fits and plans.")

    @model_validator(mode="after")
    def _slots_divide_the_day(self) -> TunerConfig:
        slots = self.day_seconds / self.slot_seconds
        if slots < 1 or abs(slots - round(slots)) > 1e-9 * slots:
            raise ValueError(
                f"slot_seconds ({self.slot_seconds:g}) must divide day_seconds ({self.day_seconds:g}): choose e.g. "
                f"{self.day_seconds / max(1, round(slots)):g}"
            )
        return self

    @model_validator(mode="after")
    def _leases_outlast_the_interval(self) -> TunerConfig:
        if self.lease_seconds < 2 * self.plan_interval_seconds:
            raise ValueError(
                f"lease_seconds ({self.lease_seconds:g}) must be at least twice plan_interval_seconds "
                f"({self.plan_interval_seconds:g}), or one late plan is called stale: raise the first, lower the other"
            )
        return self

    def quota(self, tenant: str) -> TenantQuota:
        return self.tenants.get(tenant, TenantQuota(cores=None, usd_per_day=self.usd_per_day))

    @property
    def changelog_topic(self) -> str:
        """Named by the stream processor after its own name and the table's."""
        return f"{self.group}-digests-changelog"
