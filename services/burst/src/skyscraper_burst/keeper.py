"""The ledger's thread: who leads, and what is durable.

One gateway leads and holds the ledger's transactional id; the others stand by and watch its heartbeats. One that has
been silent for `takeover_seconds` (on the standby's own monotonic clock) is succeeded: the successor's producer fences
it, reads the ledger, counts what was open as spent, and makes that durable before it serves. Safety does not rest on
clocks or on the silence being a death: a leader that only seemed dead can spend what its open blocks hold, which its
successor has counted, and can never get another.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable, read_compacted
from skyscraper.bus.errors import BusTimeout
from skyscraper.bus.fenced import Deposed, FencedWriter
from skyscraper.bus.ledger import decode_balance, decode_leader, encode_leader
from skyscraper.control.budget import Balance

from skyscraper_burst import metrics
from skyscraper_burst.config import LedgerConfig
from skyscraper_burst.treasury import Treasury, Write

log = structlog.get_logger()

_START_SECONDS = 30.0
_READ_SECONDS = 10.0
# How often a standby looks at the table, which is followed in the background.
_WATCH_SECONDS = 0.1
# Standbys that would all succeed at the same moment are told apart by chance; it costs at most this.
_MOST_JITTER_SECONDS = 0.3
_JOIN_SECONDS = 15.0


class Keeper:
    """Call `start` and `close`. `on_change` is told whenever this process begins or ceases to lead."""

    def __init__(
        self,
        client: Mapping[str, Any],
        config: LedgerConfig,
        treasury: Treasury,
        *,
        instance: str,
        on_change: Callable[[bool], None] = lambda leading: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._config = config
        self._treasury = treasury
        self._instance = instance
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._table = CompactedTable(client, topics.LEDGER)
        self._wanted = threading.Condition()
        self._dirty = self._urgent = False
        self._stop = threading.Event()
        self.failure: BaseException | None = None
        self.waiting_core_seconds = 0.0
        """Told with every heartbeat of this process while it leads. Set by whoever counts the demand."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        treasury.set_wake(self._wake)

    def start(self) -> None:
        """Raises BusTimeout, and BusError where the topic is missing."""
        self._table.start(deadline_seconds=_START_SECONDS)
        self._thread.start()

    def close(self) -> None:
        """Give back what is open, and the lead with it. Call when no request is inside any more."""
        self._stop.set()
        self._wake(True)
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._table.close()

    @property
    def told_core_seconds(self) -> float:
        """What waits, as the one that leads says it; 0 where nobody does."""
        value = self._table.get(topics.LEADER_KEY)
        leader = None if value is None else decode_leader(value)
        return 0.0 if leader is None else leader.waiting_core_seconds

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _wake(self, urgent: bool) -> None:
        with self._wanted:
            self._dirty = True
            self._urgent |= urgent
            if urgent:
                self._wanted.notify()

    def _run(self) -> None:
        try:
            while (silent_since := self._wait_for_silence()) is not None:
                self._lead(silent_since)
        except BaseException as error:
            self.failure = error
            self._treasury.depose(str(error))
            log.exception("ledger_thread_failed")

    def _wait_for_silence(self) -> float | None:
        """Until nobody leads: when the last sign of a leader was seen. None where this process is to stop."""
        seen, since = self._table.get(topics.LEADER_KEY), self._clock()
        jitter = random.uniform(0, _MOST_JITTER_SECONDS)  # noqa: S311 - tells standbys apart
        while not self._stop.is_set():
            value = self._table.get(topics.LEADER_KEY)
            leader = None if value is None else decode_leader(value)
            if leader is None or leader.instance == self._instance:
                # Nobody, one that left in an orderly way, or this process before it was started again.
                return since
            if value != seen:
                seen, since = value, self._clock()
            if self._clock() - since >= self._config.takeover_seconds + jitter:
                return since
            self._stop.wait(_WATCH_SECONDS)
        return None

    def _lead(self, silent_since: float) -> None:
        """From the take-over until deposed, out of reach of the ledger, or told to stop."""
        try:
            writer = FencedWriter(self._client, topics.LEDGER, transactional_id=self._config.transactional_id)
            self._treasury.take_over(self._read_ledger())
            self._commit(writer, self._treasury.writes())
            self._treasury.serve()
            metrics.LEADING.set(1)
            metrics.TAKEOVER_SECONDS.observe(self._clock() - silent_since)
            log.info("leading", after_seconds=round(self._clock() - silent_since, 3))
            self._on_change(True)
            self._keep(writer)
        except (Deposed, BusTimeout) as error:
            metrics.LEDGER_COMMITS.labels("deposed" if isinstance(error, Deposed) else "failed").inc()
            log.warning("no_longer_leading", error=str(error))
            self._treasury.depose(str(error))
            # Who has just been fenced need not fence back before the new leader's first heartbeat is seen.
            self._stop.wait(self._config.takeover_seconds)
        finally:
            metrics.LEADING.set(0)
            self._on_change(False)

    def _keep(self, writer: FencedWriter) -> None:
        next_heartbeat = self._clock() + self._config.heartbeat_seconds
        while not self._stop.is_set():
            self._wait_for_work(next_heartbeat)
            writes = self._treasury.writes()
            if writes or self._clock() >= next_heartbeat:
                self._commit(writer, writes)
                next_heartbeat = self._clock() + self._config.heartbeat_seconds
        last = self._treasury.writes(final=True)
        self._treasury.depose("this gateway is stopping")
        records: list[tuple[bytes, bytes | None]] = [(write.tenant.encode(), write.value) for write in last]
        writer.commit([*records, (topics.LEADER_KEY, None)])

    def _wait_for_work(self, next_heartbeat: float) -> None:
        """At once where requests wait; else settled work is gathered for a while."""
        now = self._clock()
        gathered = min(next_heartbeat, now + self._config.settle_seconds)
        with self._wanted:
            while not (self._urgent or self._stop.is_set()):
                left = (gathered if self._dirty else next_heartbeat) - self._clock()
                if left <= 0:
                    break
                # What is not urgent does not notify; look again after a while.
                self._wanted.wait(min(left, self._config.settle_seconds))
            self._dirty = self._urgent = False

    def _commit(self, writer: FencedWriter, writes: list[Write]) -> None:
        started = self._clock()
        heartbeat = encode_leader(self._instance, self._wall(), self.waiting_core_seconds)
        records: list[tuple[bytes, bytes | None]] = [(write.tenant.encode(), write.value) for write in writes]
        writer.commit([*records, (topics.LEADER_KEY, heartbeat)])
        self._treasury.committed(writes)
        metrics.LEDGER_COMMITS.labels("committed").inc()
        metrics.LEDGER_SECONDS.observe(self._clock() - started)

    def _read_ledger(self) -> dict[str, tuple[int, Balance]]:
        """Raises LedgerError where a balance cannot be read: money that may be spent must not be spent again."""
        tables = read_compacted(self._client, topics.LEDGER, deadline_seconds=_READ_SECONDS)
        return {
            key.decode(): decode_balance(value)
            for table in tables.values()
            for key, value in table.items()
            if key != topics.LEADER_KEY
        }
