"""The stream processor (faust): sky.reports by partition into a table with a changelog, in a thread of its own.

What faust does here: it shares the partitions among the tuners, keeps each one's part of the table in memory, writes
every change to the changelog topic, and rebuilds the part from there. Its traps, and what is done about them:
it does not create or check its source topic (we do, and say so); a killed process holds its partitions until its
session ends (static membership: started again under its name it has them at once); its metrics are not Prometheus's
(ours are); its tables speak JSON (ours are bytes).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from skyscraper.bus.admin import create_topics
from skyscraper.bus.errors import BusError, BusTimeout
from skyscraper.bus.topics import REPORTS, TopicSpec
from skyscraper.errors import ConfigError
from skyscraper.service.config import KafkaConfig

from skyscraper_tuner import metrics
from skyscraper_tuner.config import TunerConfig
from skyscraper_tuner.fits import Fits
from skyscraper_tuner.ledger import Ledger

log = structlog.get_logger()

_REQUEST_SECONDS = 15.0
_TICK_SECONDS = 0.2
_STOP_SECONDS = 10.0
# Offsets are committed so often; what is read again after a kill is known by its offset and changes nothing.
_COMMIT_SECONDS = 1.0
# aiokafka wants requests to outlast a session.
_REQUEST_MARGIN_SECONDS = 10.0


class _CommittedThread(AIOKafkaConsumerThread):
    """Reports are written in transactions, and those of an aborted one never happened. faust reads them all the same
    unless it writes in transactions itself, so its consumer is told otherwise before it starts."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - there is no setting for it
        return consumer


class _CommittedConsumer(Consumer):
    def _new_consumer_thread(self) -> _CommittedThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)


class Shards:
    """Start it, ask `ready` and `check`, close it."""

    def __init__(self, config: TunerConfig, fits: Fits) -> None:
        self._config = config
        self._fits = fits
        self._folder = _made(config.state_folder / config.instance)
        self._partitions = ensure_topics(config.kafka.client(), config.changelog_topic)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shards", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether this process's part of the table was rebuilt."""
        return self._ready.is_set()

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises BusError where the stream processor has ended by itself."""
        if self._failure is not None:
            raise BusError(
                f"the stream processor ended: {self._failure!r}; is there another tuner with the same `instance`?"
            ) from self._failure
        if not self._thread.is_alive() and not self._stop.is_set():
            raise BusError("the stream processor ended without a word")

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        # Its libraries warn through Python's own logging, every retry of a broker that restarts included.
        for name in ("faust", "mode", "aiokafka"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread must hear of it
            self._failure = error

    async def _work(self) -> None:
        started = time.monotonic()
        app = self._app(asyncio.get_running_loop())
        await app.start()
        try:
            while not self._stop.is_set():
                if not self._ready.is_set() and app.tables.recovery.completed.is_set():
                    metrics.RECOVERY_SECONDS.labels("table").observe(time.monotonic() - started)
                    log.info("table_rebuilt", seconds=round(time.monotonic() - started, 3))
                    self._ready.set()
                if app.crashed or app.should_stop:
                    raise BusError(f"it crashed: {app.crash_reason!r}")
                metrics.DIGESTS.set(sum(len(table) for table in app.tables.values()))
                await asyncio.sleep(_TICK_SECONDS)
        finally:
            await asyncio.wait_for(app.stop(), _STOP_SECONDS)

    def _app(self, loop: asyncio.AbstractEventLoop) -> Any:
        # Of any type: the recovery's state and the consumer's class are in no interface of faust's.
        config = self._config
        app: Any = faust.App(
            config.group,
            broker=[f"aiokafka://{server.strip()}" for server in config.kafka.bootstrap_servers.split(",")],
            broker_credentials=credentials(config.kafka),
            broker_session_timeout=config.session_timeout_seconds,
            broker_heartbeat_interval=config.session_timeout_seconds / 4,
            broker_request_timeout=config.session_timeout_seconds + _REQUEST_MARGIN_SECONDS,
            broker_commit_interval=_COMMIT_SECONDS,
            consumer_group_instance_id=config.instance,
            consumer_auto_offset_reset="earliest",
            datadir=str(self._folder),
            key_serializer="raw",
            value_serializer="raw",
            loop=loop,
            store="memory://",
            topic_disable_leader=True,
            topic_partitions=self._partitions,
            web_enabled=False,
        )
        reports = app.topic(REPORTS, key_type=bytes, value_type=bytes)
        table = app.Table("digests", key_type=bytes, value_type=bytes, partitions=self._partitions)
        ledger = Ledger(
            table,
            self._fits,
            slot_seconds=config.slot_seconds,
            day_seconds=config.day_seconds,
            history_days=config.history_days,
            samples_per_slot=config.samples_per_slot,
        )

        async def take(stream: Any) -> None:
            async for event in stream.events():
                ledger.take(event.value, event.message.offset)

        app.agent(reports, name="reports")(take)
        app.finalize()
        app.transport.Consumer = _CommittedConsumer
        return app


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state_folder: {folder} cannot be made ({error.strerror}); choose another") from error
    return folder


def ensure_topics(client: Mapping[str, Any], changelog: str) -> int:
    """Partitions of sky.reports; creates the changelog with as many. Raises ConfigError, BusTimeout."""
    # The handle must outlive its answer.
    admin = AdminClient(dict(client))
    try:
        found = admin.list_topics(timeout=_REQUEST_SECONDS).topics
    except KafkaException as error:
        raise BusTimeout(
            f"Kafka at {client.get('bootstrap.servers')} does not answer: {error.args[0].str()}"
        ) from error
    if REPORTS not in found:
        raise ConfigError(f"the topic {REPORTS} is not there: create the topics with `skyscraper topics create`")
    partitions = found[REPORTS].partitions
    if changelog in found and len(found[changelog].partitions) > len(partitions):
        raise ConfigError(
            f"{changelog} has {len(found[changelog].partitions)} partitions and {REPORTS} {len(partitions)}: it is of "
            "another installation; delete it, or choose another `group`"
        )
    replicas = len(next(iter(partitions.values())).replicas)
    spec = TopicSpec(changelog, len(partitions), {"cleanup.policy": "compact"})
    create_topics(client, [spec], replication_factor=max(1, replicas))
    return len(partitions)


def credentials(kafka: KafkaConfig) -> Any:
    """The same security as for librdkafka, in the stream processor's words; None for plain text."""
    context = None
    if kafka.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=kafka.ssl_ca_location)
        if kafka.ssl_certificate_location is not None:
            context.load_cert_chain(kafka.ssl_certificate_location, kafka.ssl_key_location)
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)
