"""The burst gateway's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from skyscraper.bus.ledger import decode_budget, is_tenant
from skyscraper.control.budget import Budget
from skyscraper.errors import SkyscraperError
from skyscraper.rpc.tls import ClientTls, ServerTls
from skyscraper.service.config import KafkaConfig, ServiceConfig, Settings
from skyscraper.v1 import burst_pb2

MICRO_PER_USD = 1_000_000
_PERIODS = {
    "hour": burst_pb2.CALENDAR_PERIOD_HOUR,
    "day": burst_pb2.CALENDAR_PERIOD_DAY,
    "week": burst_pb2.CALENDAR_PERIOD_WEEK,
    "month": burst_pb2.CALENDAR_PERIOD_MONTH,
}


class BudgetConfig(Settings):
    """Dollars for a window; SetBudget overrides it, and the ledger remembers that."""

    usd: float = Field(ge=0, description="Dollars that may be spent in a window.")
    window: Literal["rolling", "hour", "day", "week", "month"] = Field(
        "day", description="rolling: the last rolling_seconds, at every moment; else the calendar's current one."
    )
    rolling_seconds: float = Field(86_400.0, ge=1, description="Length of a rolling window.")
    time_zone: str = Field("UTC", description="IANA name of the zone whose days, weeks and months count.")

    @model_validator(mode="after")
    def _is_a_budget(self) -> BudgetConfig:
        try:
            self.budget()
        except SkyscraperError as error:
            raise ValueError(str(error)) from error
        return self

    def budget(self) -> Budget:
        message = burst_pb2.Budget(micro_usd=round(self.usd * MICRO_PER_USD), time_zone=self.time_zone)
        if self.window == "rolling":
            message.rolling_seconds = self.rolling_seconds
        else:
            message.calendar = _PERIODS[self.window]
        return decode_budget(message)


class PoolConfig(Settings):
    """Spot machines of one price."""

    name: str = Field("spot", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="Label of its metrics.")
    targets: tuple[str, ...] = Field(
        ("127.0.0.1:8101",),
        min_length=1,
        description="host:port of its inference servers; every address that a name resolves to is one machine.",
    )
    usd_per_core_hour: float = Field(
        0.05, gt=0, description="Price of a core; with price_file or price_query, what counts while they say nothing."
    )
    price_file: Path | None = Field(
        None, description="A file whose first line is the price in dollars per core-hour; read again when it changes."
    )
    price_query: str | None = Field(
        None, description="A PromQL query whose first value is the price in dollars per core-hour."
    )
    cold_start_seconds: float = Field(
        120.0, ge=0, description="From the first demand until a machine answers, where none is running."
    )
    core_seconds_per_machine: float = Field(
        8.0, gt=0, description="Waiting work for which one more machine is wanted; its cores times the wait allowed."
    )
    most_machines: int | None = Field(
        None, ge=1, description="What waits beyond their share is the next dearer pool's; none: there is no limit."
    )

    @model_validator(mode="after")
    def _one_source_of_the_price(self) -> PoolConfig:
        if self.price_file is not None and self.price_query is not None:
            raise ValueError("price_file and price_query are both set: choose one source of the price")
        return self


class PriceConfig(Settings):
    """How prices that change are followed."""

    prometheus_url: str | None = Field(None, description="Base URL of the Prometheus that price_query is asked of.")
    refresh_seconds: float = Field(30.0, gt=0, description="Files and queries are read so often.")
    stale_seconds: float = Field(
        600.0, gt=0, description="A price without news for so long is no longer believed: usd_per_core_hour counts."
    )

    @field_validator("prometheus_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("prometheus_url must begin with http:// or https://")
        return url


class LinkConfig(Settings):
    """The link to the burst pool."""

    uplink_bytes_per_second: float | None = Field(None, gt=0, description="None: no limit is known.")
    downlink_bytes_per_second: float | None = Field(None, gt=0, description="None: no limit is known.")
    burst_bytes: float = Field(1_000_000.0, ge=0, description="What may be sent at once after a quiet time.")


class LedgerConfig(Settings):
    """Blocks of dollars and who leads."""

    transactional_id: str = Field(
        "sky-burst-ledger", description="All gateways of an installation share it: it is what fences them."
    )
    takeover_seconds: float = Field(
        2.5, gt=0.5, le=30, description="A leader silent for so long is succeeded by a standby."
    )
    heartbeat_seconds: float = Field(0.5, gt=0, description="A leader that has nothing to write says so this often.")
    settle_seconds: float = Field(
        0.1, gt=0, description="Settled work is durable after so long at the latest; a crash costs what is not."
    )
    ahead_seconds: float = Field(
        0.25, gt=0, description="Blocks cover so many seconds of spending at the present pace: a few commits."
    )
    most_block_share: float = Field(
        0.001, gt=0, le=1, description="Largest part of a budget in one block, unless one request alone needs more."
    )

    @model_validator(mode="after")
    def _heartbeats_fit_the_takeover(self) -> LedgerConfig:
        if self.takeover_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                f"takeover_seconds ({self.takeover_seconds:g}) must be at least three times heartbeat_seconds "
                f"({self.heartbeat_seconds:g}), or one late heartbeat deposes a healthy leader"
            )
        return self


class RetryConfig(Settings):
    """What is done about spot machines that go away."""

    attempts: int = Field(4, ge=1, description="Times one request is sent, hedges included.")
    hedge_share: float = Field(
        0.05, ge=0, le=1, description="Largest share of requests that are sent again after their 95th percentile."
    )
    breaker_failures: int = Field(5, ge=1, description="Of the last 10 requests to a machine; then it is left alone.")
    breaker_open_seconds: float = Field(1.0, gt=0, description="For so long at first; doubles with every failed probe.")
    breaker_most_open_seconds: float = Field(30.0, gt=0, description="And no longer than this.")


class ScalingConfig(Settings):
    """What KEDA is told."""

    demand_memory_seconds: float = Field(
        30.0, gt=0, description="Work that was asked for while no machine was there keeps counting for so long."
    )


class BurstConfig(ServiceConfig):
    """Settings of one burst gateway."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_BURST_"

    kafka: KafkaConfig = Field(default_factory=KafkaConfig, description="How to reach Kafka.")
    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 in a container.")
    port: int = Field(8100, ge=0, le=65535, description="gRPC port; 0 picks a free one and logs it.")
    port_file: Path | None = Field(None, description="Where to write the port once it is bound.")
    tls: ServerTls | None = Field(None, description="None serves in clear text: only inside a trusted network.")
    machine_tls: ClientTls | None = Field(
        None, description="Towards the machines, whose certificates must carry the names in targets; none: clear text."
    )
    pools: tuple[PoolConfig, ...] = Field(
        (PoolConfig.model_validate({}),), min_length=1, description="Where work can be sent; the cheapest first."
    )
    budgets: dict[str, BudgetConfig] = Field(default_factory=dict, description="By tenant.")
    default_budget: BudgetConfig | None = Field(
        None, description="Of tenants that have none of their own; none: they may not burst."
    )
    prices: PriceConfig = Field(default_factory=PriceConfig, description="How prices that change are followed.")
    link: LinkConfig = Field(default_factory=LinkConfig, description="The link to the burst pool.")
    ledger: LedgerConfig = Field(default_factory=LedgerConfig, description="Blocks of dollars and who leads.")
    retry: RetryConfig = Field(
        default_factory=RetryConfig, description="What is done about spot machines that go away."
    )
    scaling: ScalingConfig = Field(default_factory=ScalingConfig, description="What KEDA is told.")
    cores_per_request: float = Field(
        1.0, gt=0, description="Cores that a request can occupy; with its deadline, what it can cost at most."
    )
    default_deadline_seconds: float = Field(10.0, gt=0, description="Of requests that come without one.")
    most_deadline_seconds: float = Field(
        60.0, gt=0, description="Longer deadlines are shortened to this, or one request could hold the whole budget."
    )
    in_flight_bytes: int = Field(
        256 * 1024 * 1024, gt=0, description="Requests inside at once; beyond it they are refused."
    )
    max_message_bytes: int = Field(64 * 1024 * 1024, gt=0, description="Largest gRPC message taken.")
    resolve_seconds: float = Field(2.0, gt=0, description="Names of machines are looked up so often.")

    @model_validator(mode="after")
    def _names_are_good(self) -> BurstConfig:
        bad = [name for name in self.budgets if not is_tenant(name)]
        if bad:
            raise ValueError(f"budgets: {bad[0]!r} is not a tenant's name (letters, digits, . _ -; 63 at most)")
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError("pools: two have the same name")
        if any(pool.price_query for pool in self.pools) and self.prices.prometheus_url is None:
            raise ValueError("a pool has a price_query, and prices.prometheus_url is not set")
        return self

    @model_validator(mode="after")
    def _a_message_fits(self) -> BurstConfig:
        if self.max_message_bytes > self.in_flight_bytes:
            raise ValueError(
                f"max_message_bytes ({self.max_message_bytes}) is larger than in_flight_bytes "
                f"({self.in_flight_bytes}): such a request could never be taken; raise the second or lower the first"
            )
        if self.default_deadline_seconds > self.most_deadline_seconds:
            raise ValueError(
                f"default_deadline_seconds ({self.default_deadline_seconds:g}) is above most_deadline_seconds "
                f"({self.most_deadline_seconds:g})"
            )
        return self
