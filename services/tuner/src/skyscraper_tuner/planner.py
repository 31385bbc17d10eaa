"""The elected planner's rounds: gather what is known, make plans, publish them, look after trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog
from google.protobuf.message import DecodeError
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.headroom import Buffer
from skyscraper.bus.profiles import publish_profile
from skyscraper.bus.topics import POOL_KEY
from skyscraper.control.headroom import Retention
from skyscraper.errors import ConfigError
from skyscraper.profile.codec import encode_fit
from skyscraper.profile.fit import Fit
from skyscraper.profile.forecast import Forecaster
from skyscraper.profile.refit import Samples
from skyscraper.v1 import digest_pb2, plan_pb2, profile_pb2, stream_pb2

from skyscraper_tuner import metrics
from skyscraper_tuner.config import TunerConfig
from skyscraper_tuner.digest import paid_usd_per_core_second, split_key
from skyscraper_tuner.fits import Fits
from skyscraper_tuner.outlook import refined
from skyscraper_tuner.past import by_stream, labels_of, samples_of
from skyscraper_tuner.planning import Inputs, Made, Quota, Registered, Terms, make_plans
from skyscraper_tuner.refitting import Refitted, Refitting
from skyscraper_tuner.trial import Trial
from skyscraper_tuner.writer import PlanWriter

log = structlog.get_logger()

# Forecasters are refined with every day of the content; a day of minutes, every so often.
_SHORTEST_REFINING_SECONDS = 600.0
_POLICIES = {"priced": plan_pb2.POLICY_PRICED, "skyscraper": plan_pb2.POLICY_SKYSCRAPER}


class Planner:
    """Made when this process is elected: the writer it makes fences all others. One thread."""

    def __init__(
        self,
        config: TunerConfig,
        *,
        streams: CompactedTable,
        digests: CompactedTable,
        fits: Fits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._client = config.kafka.client()
        self._streams = streams
        self._digests = digests
        self._fits = fits
        self._clock = clock
        self._retention = Buffer(self._client).retention() if config.limit_seconds is None else Retention(None, None)
        self._writer = PlanWriter(self._client, transactional_id=f"{config.group}-plans")
        self._refitting = Refitting(config.refit, seed=config.seed)
        self._trials = self._trials_on_the_bus()
        self._decoded: dict[bytes, tuple[bytes, digest_pb2.StreamDigest | digest_pb2.SlotDigest]] = {}
        self._forecasters: dict[str, tuple[str, Forecaster]] = {}
        self._refined = float("-inf")

    @property
    def version(self) -> int:
        return self._writer.version

    def close(self) -> None:
        self._refitting.close()

    def round(self) -> Made:
        """Make all plans and publish them. Raises Deposed, BusTimeout."""
        started = time.monotonic()
        inputs = self._inputs()
        made = make_plans(inputs)
        for pipeline, fit in made.promoted.items():
            self._promote(pipeline, fit)
        self._writer.publish(made.plans)
        metrics.PLAN_SECONDS.observe(time.monotonic() - started)
        metrics.PLANS.labels("published" if POOL_KEY in made.plans else "empty").inc()
        self._export(made, inputs)
        self._give_up(made)
        self._refit(inputs, made)
        return made

    def _inputs(self) -> Inputs:
        streams = registered(self._streams.items())
        pipelines = {one.pipeline for one in streams}
        fits = {one: fit for one in sorted(pipelines) if (fit := self._fits.current(one)) is not None}
        digests, slots = self._read_digests({one.stream_id for one in streams})
        self._refine(streams, fits, slots)
        return Inputs(
            now_seconds=self._clock(),
            terms=self._terms(digests, streams),
            streams=streams,
            fits=fits,
            compatible={one: self._fits.compatible(one, fit) for one, fit in fits.items()},
            trials={one: trial for one, trial in self._trials.items() if one in fits},
            digests=digests,
            slots=slots,
            forecasters={
                one.stream_id: known[1]
                for one in streams
                if (known := self._forecasters.get(one.stream_id)) is not None
                and one.pipeline in fits
                and known[0] == fits[one.pipeline].version
            },
        )

    def _terms(self, digests: Mapping[str, digest_pb2.StreamDigest], streams: list[Registered]) -> Terms:
        config = self._config
        first_price = None if config.burst_usd_per_core_hour is None else config.burst_usd_per_core_hour / 3600
        fastest = max((one.bytes_per_second for one in digests.values()), default=0.0)
        return Terms(
            cores=config.pool_cores,
            limit_seconds=config.limit_seconds or limit_of(self._retention, fastest, config.limit_safety),
            day_seconds=config.day_seconds,
            slot_seconds=config.slot_seconds,
            lease_seconds=config.lease_seconds,
            history_days=config.history_days,
            policy=_POLICIES[config.policy],
            quotas={
                tenant: Quota(config.quota(tenant).cores, config.quota(tenant).usd_per_day)
                for tenant in {one.tenant for one in streams}
            },
            burst_usd_per_core_second=paid_usd_per_core_second(digests.values()) or first_price,
        )

    def _read_digests(
        self, streams: set[str]
    ) -> tuple[dict[str, digest_pb2.StreamDigest], list[digest_pb2.SlotDigest]]:
        """Of streams that are there; each record is decoded once."""
        decoded: dict[bytes, tuple[bytes, digest_pb2.StreamDigest | digest_pb2.SlotDigest]] = {}
        digests: dict[str, digest_pb2.StreamDigest] = {}
        slots: list[digest_pb2.SlotDigest] = []
        for key, value in self._digests.items().items():
            stream_id, slot = split_key(key)
            if stream_id not in streams:
                continue
            known = self._decoded.get(key)
            if known is None or known[0] != value:
                kind = digest_pb2.StreamDigest if slot is None else digest_pb2.SlotDigest
                try:
                    known = value, kind.FromString(value)
                except DecodeError:
                    log.warning("digest_cannot_be_read", key=key.decode(errors="replace"))
                    continue
            decoded[key] = known
            if isinstance(known[1], digest_pb2.StreamDigest):
                digests[stream_id] = known[1]
            else:
                slots.append(known[1])
        self._decoded = decoded
        slots.sort(key=lambda one: (one.stream_id, one.slot))
        return digests, slots

    def _refine(self, streams: list[Registered], fits: Mapping[str, Fit], slots: list[digest_pb2.SlotDigest]) -> None:
        if time.monotonic() - self._refined < max(self._config.day_seconds, _SHORTEST_REFINING_SECONDS):
            return
        self._refined = time.monotonic()
        of_stream = by_stream(slots)
        for stream in streams:
            fit = fits.get(stream.pipeline)
            if fit is None:
                continue
            labels = labels_of(of_stream.get(stream.stream_id, []), fit.categories.count)
            found = refined(fit, labels, day_seconds=self._config.day_seconds, seed=self._config.seed)
            if found is not None:
                self._forecasters[stream.stream_id] = fit.version, found

    def _trials_on_the_bus(self) -> dict[str, Trial]:
        """Those that the last planner had under way."""
        found = {}
        for plan in self._writer.published.values():
            stream = plan.stream
            if stream.shadow_version:
                fit = self._fits.version(stream.pipeline, stream.shadow_version)
                if fit is not None:
                    found[stream.pipeline] = Trial(fit, stream.shadow_since_time.ToNanoseconds() * 1e-9)
        return found

    def _promote(self, pipeline: str, fit: Fit) -> None:
        """Before the plans that name it: whoever reads them finds it."""
        self._publish_fit(pipeline, fit, current=True)
        self._trials.pop(pipeline, None)
        metrics.REFITS.labels(pipeline, "promoted").inc()
        log.info("fit_promoted", pipeline=pipeline, version=fit.version)

    def _give_up(self, made: Made) -> None:
        for pipeline, shadow in made.shadows.items():
            if shadow.segments >= self._config.refit.give_up_segments and pipeline in self._trials:
                trial = self._trials.pop(pipeline)
                metrics.REFITS.labels(pipeline, "rejected").inc()
                log.info("fit_rejected", pipeline=pipeline, version=trial.fit.version, segments=shadow.segments)

    def _refit(self, inputs: Inputs, made: Made) -> None:
        done = self._refitting.finished()
        if done is not None:
            self._begin_trial(done)
        of_pipeline = {one.stream_id: one.pipeline for one in inputs.streams}
        drifted = {plan.stream.pipeline for plan in made.plans.values() if plan.stream.drifted}

        def samples(pipeline: str) -> Samples:
            mine = (slot for slot in inputs.slots if of_pipeline.get(slot.stream_id) == pipeline)
            fit = inputs.fits[pipeline]
            return samples_of(mine, fit, inputs.compatible[pipeline])

        self._refitting.start(samples, inputs.fits, drifted=drifted, on_trial=self._trials)

    def _begin_trial(self, done: Refitted) -> None:
        current = self._fits.current(done.pipeline)
        if current is None or current.version != done.parent:
            # Somebody published another profile meanwhile.
            metrics.REFITS.labels(done.pipeline, "overtaken").inc()
            return
        self._publish_fit(done.pipeline, done.fit, current=False)
        self._trials[done.pipeline] = Trial(done.fit, done.since_seconds)
        metrics.REFITS.labels(done.pipeline, "on_trial").inc()
        log.info("fit_on_trial", pipeline=done.pipeline, version=done.fit.version)

    def _publish_fit(self, pipeline: str, fit: Fit, *, current: bool) -> None:
        message = self._fits.profile(pipeline) or profile_pb2.Profile(pipeline=pipeline)
        message.fit.CopyFrom(encode_fit(fit))
        publish_profile(self._client, message, current=current)

    def _export(self, made: Made, inputs: Inputs) -> None:
        metrics.PLAN_VERSION.set(self._writer.version)
        metrics.PLAN_TIME.set(inputs.now_seconds)
        plans = {plan.stream.stream_id: plan.stream for plan in made.plans.values() if plan.HasField("stream")}
        refused = sum(plan.refused for plan in plans.values())
        metrics.STREAMS_PLANNED.set(len(plans) - refused)
        metrics.STREAMS_REFUSED.set(refused)
        for reason in ("no_profile", "no_quality"):
            metrics.STREAMS_UNPLANNED.labels(reason).set(list(made.unplanned.values()).count(reason))
        for gauge in (metrics.CORES, metrics.DRIFT, metrics.DRIFTED, metrics.FORECAST_ERROR):
            gauge.clear()
        for name, plan in plans.items():
            metrics.CORES.labels(name).set(plan.cores)
            metrics.DRIFT.labels(name).set(plan.drift_error)
            metrics.DRIFTED.labels(name).set(plan.drifted)
            error = made.outlooks[name].error
            if error is not None:
                metrics.FORECAST_ERROR.labels(name).set(error)
        metrics.SHADOW_SEGMENTS.clear()
        for pipeline, shadow in made.shadows.items():
            metrics.SHADOW_SEGMENTS.labels(pipeline).set(shadow.segments)
        if made.joint is not None:
            price = made.joint.price
            slot = int(inputs.now_seconds % self._config.day_seconds // self._config.slot_seconds)
            level = int(price.edges.searchsorted(price.last_need))
            metrics.WORK_PRICE.set(price.at(slot, level, 0.0))
            metrics.USD_PRICE.set(price.usd_price)


def registered(table: Mapping[bytes, bytes]) -> list[Registered]:
    """Active streams of sky.streams; entries that cannot be read are left out."""
    found = []
    for key, value in sorted(table.items()):
        try:
            stream = stream_pb2.Stream.FromString(value)
        except DecodeError:
            log.warning("stream_cannot_be_read", key=key.decode(errors="replace"))
            continue
        if stream.stream_id and stream.pipeline and stream.state != stream_pb2.STREAM_STATE_PAUSED:
            # The lowest free partition goes to the newest stream, so it tells who has been there longer.
            found.append(
                Registered(stream.stream_id, stream.pipeline, stream.tenant, stream.weight or 1.0, stream.partition)
            )
    return found


def limit_of(retention: Retention, bytes_per_second: float, safety: float) -> float:
    """How long a segment may wait in the buffer: what retention holds of the fastest stream, times `safety`.

    Raises ConfigError where there is no limit.
    """
    by_time = float("inf") if retention.seconds is None else retention.seconds
    by_bytes = float("inf")
    if retention.bytes_per_partition is not None and bytes_per_second > 0:
        by_bytes = retention.bytes_per_partition / bytes_per_second
    limit = min(by_time, by_bytes) * safety
    if not 0 < limit < float("inf"):
        raise ConfigError(
            f"sky.segments is kept for {by_time:g} s and {by_bytes:g} s of bytes: set retention.ms on the topic, or "
            "limit_seconds here"
        )
    return limit
