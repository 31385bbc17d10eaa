"""Following the register: which streams this publisher is to capture, and how, as of now.

The rule that keeps two publishers off one stream: a following publisher captures the streams whose entry names its
instance, and no others; a stream that its own file brings is registered under its name first (refused where another
has it), and then the register decides for it too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace

import structlog
from google.protobuf.message import DecodeError
from pydantic import ValidationError
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.register import change_register
from skyscraper.bus.stream_edits import releasing
from skyscraper.bus.topics import STREAMS
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, STREAM_STATE_REMOVING, STREAM_STATE_UNSPECIFIED, Stream

from skyscraper_publisher.config import PublisherConfig, StreamConfig
from skyscraper_publisher.credentials import read_credentials, with_credentials
from skyscraper_publisher.remembered import recall, remember, remembered_file

log = structlog.get_logger()

# How soon a change of the register is acted on; comparing a hundred entries takes about a millisecond.
LOOK_SECONDS = 0.2
# A broker that does not answer is asked again at this rhythm.
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Orders:
    """What the register says to one publisher."""

    wanted: Mapping[str, StreamConfig] = field(default_factory=dict)
    """By id, how each stream is to be captured. Only what a capture depends on is filled in, so that a change of the
    pipeline or the weight restarts nothing."""
    partitions: Mapping[str, int] = field(default_factory=dict)
    """Of every registered stream, wanted here or not: what is left of a stream is sent there."""
    held: frozenset[str] = frozenset()
    """Streams that name this publisher but are not to be captured now."""
    removing: frozenset[str] = frozenset()
    """Of those, the ones to be given up for good."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Entries that name this publisher and cannot be captured, with the reason."""
    remembered: bool = False
    """From this publisher's own disk, because the register has not been read yet: enough to capture, not to send."""


def read_orders(
    entries: Mapping[bytes, bytes],
    instance: str,
    own: Mapping[str, StreamConfig],
    with_secrets: Callable[[str], str],
) -> Orders:
    """`entries` are the values of `sky.streams` by key, `own` the streams of this publisher's file."""
    wanted, partitions, held, removing, unusable = {}, {}, set(), set(), {}
    for key, value in entries.items():
        stream_id = key.decode(errors="replace")
        try:
            stream = Stream.FromString(value)
        except DecodeError:
            # Not ours to judge: nobody can say whom it names.
            continue
        partitions[stream_id] = stream.partition
        if stream.publisher != instance:
            continue
        if stream.state not in {STREAM_STATE_UNSPECIFIED, STREAM_STATE_ACTIVE}:
            held.add(stream_id)
            if stream.state == STREAM_STATE_REMOVING:
                removing.add(stream_id)
        elif stream_id in own:
            wanted[stream_id] = own[stream_id]
        else:
            try:
                wanted[stream_id] = capture_settings(stream_id, stream, with_secrets)
            except ConfigError as error:
                unusable[stream_id] = str(error)
    return Orders(wanted, partitions, frozenset(held), frozenset(removing), unusable)


def capture_settings(stream_id: str, stream: Stream, with_secrets: Callable[[str], str]) -> StreamConfig:
    """Raises ConfigError, without the source's credentials."""
    capture, pace = stream.capture, stream.capture.pace or "real"
    try:
        return StreamConfig.model_validate(
            {
                "id": stream_id,
                "source": with_secrets(stream.source),
                "loop": capture.loop,
                "watch": capture.watch,
                "pace": pace if pace in {"real", "max"} else float(pace),
            }
        )
    except ValidationError as error:
        told = "; ".join(fault["msg"] for fault in error.errors(include_input=False, include_url=False))
        raise ConfigError(f"the entry of {stream_id} in {STREAMS} cannot be used: {told}") from None
    except ValueError:
        raise ConfigError(f"the entry of {stream_id} in {STREAMS} cannot be used: a pace of {pace!r}") from None


class Following:
    """Reads the register in a thread of its own, and says there which streams are given up.

    The sending loop asks `orders` and tells `given_up`; neither ever waits for the broker.
    """

    def __init__(self, config: PublisherConfig, stop: threading.Event) -> None:
        self._config = config
        self._stop = stop
        self._own = {stream.id: stream for stream in config.streams}
        self._lock = threading.Lock()
        self._orders: Orders | None = None
        self._given_up: set[str] = set()
        self._told_unusable: Mapping[str, str] = {}
        self._memory = remembered_file(config.spill.folder, config.instance)
        self._remembered = recall(self._memory)

    @property
    def orders(self) -> Orders | None:
        """None until the register has been read or recalled."""
        with self._lock:
            return self._orders

    def given_up(self, stream_ids: Set[str]) -> None:
        """Nothing of these streams is held any more."""
        with self._lock:
            self._given_up = set(stream_ids)

    def run(self) -> None:
        """Until the service stops."""
        client = self._config.kafka.client()
        table: CompactedTable | None = None
        try:
            while not self._stop.is_set():
                try:
                    if table is None:
                        table = CompactedTable(client, STREAMS)
                        table.start(deadline_seconds=self._config.register_seconds)
                        log.info("following", instance=self._config.instance, streams=len(table.items()))
                    self._look(table)
                    self._release()
                except SkyscraperError as error:
                    log.warning("following_waits", error=str(error))
                    if table is not None and (self.orders is None or self.orders.remembered):
                        table.close()
                        table = None
                    self._stop.wait(RETRY_SECONDS)
                else:
                    self._stop.wait(LOOK_SECONDS)
        finally:
            if table is not None:
                table.close()

    def recall(self) -> None:
        """Until the register answers, capture what it said last, and what the publisher's own file says."""
        recalled = self._read(self._remembered)
        with self._lock:
            if self._orders is not None:
                return
            log.warning("following_from_memory", streams=len(recalled.wanted))
            self._orders = replace(recalled, wanted={**recalled.wanted, **self._own}, partitions={}, remembered=True)

    def _read(self, entries: Mapping[bytes, bytes]) -> Orders:
        secrets = read_credentials(self._config.credentials_file, self._config.credentials)
        return read_orders(entries, self._config.instance, self._own, lambda source: with_credentials(source, secrets))

    def _look(self, table: CompactedTable) -> None:
        entries = table.items()
        orders = self._read(entries)
        wanted = {key: value for key, value in entries.items() if key.decode(errors="replace") in orders.wanted}
        if wanted != self._remembered:
            remember(self._memory, wanted)
            self._remembered = wanted
        for stream_id, reason in orders.unusable.items():
            if self._told_unusable.get(stream_id) != reason:
                log.error("stream_unusable", stream=stream_id, error=reason)
        self._told_unusable = orders.unusable
        with self._lock:
            self._orders = orders

    def _release(self) -> None:
        with self._lock:
            given_up = sorted(self._given_up)
        for stream_id in given_up:
            change_register(
                self._config.kafka.client(),
                releasing(stream_id, self._config.instance),
                deadline_seconds=self._config.register_seconds,
            )
            log.info("stream_released", stream=stream_id)
            with self._lock:
                self._given_up.discard(stream_id)
