"""The decoder's loop: fetch, hand to lanes, commit what they finished. One thread; the lanes work beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from skyscraper.bus import topics
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.headroom import Buffer
from skyscraper.control.live import warm
from skyscraper.pipeline import load_pipeline
from skyscraper.rpc.burst_client import BurstClient
from skyscraper.rpc.model_client import OipModelClient, open_channel
from skyscraper.rpc.tls import channel_credentials
from skyscraper.service import Health
from skyscraper.v1 import state_pb2

from skyscraper_decoder import observe
from skyscraper_decoder.ahead import Ahead, Scout
from skyscraper_decoder.backlog import BacklogMeter
from skyscraper_decoder.bursting import Bursting
from skyscraper_decoder.commit import Committer
from skyscraper_decoder.config import DecoderConfig
from skyscraper_decoder.directory import Directory
from skyscraper_decoder.foresight import Foresight
from skyscraper_decoder.lane import Lane
from skyscraper_decoder.minds import Minds
from skyscraper_decoder.outcome import Outcome
from skyscraper_decoder.ownership import Ownership
from skyscraper_decoder.plans import PlanBook
from skyscraper_decoder.step import SegmentStep
from skyscraper_decoder.switching import Switcher
from skyscraper_decoder.turnstile import Turnstile

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
# The loop turns every 50 ms and a commit ends within its timeout; a loop that stands still for so long is hung.
_ALIVE_SECONDS = 120.0


class Decoder:
    """One decoder process, without its signals and its HTTP face."""

    def __init__(self, config: DecoderConfig) -> None:
        if config.default_pipeline is not None:
            load_pipeline(config.default_pipeline)
        warm()
        self._config = config
        client = config.kafka.client()
        with ExitStack() as cleanup:
            self._streams = CompactedTable(client, topics.STREAMS)
            cleanup.callback(self._streams.close)
            self._streams.start(deadline_seconds=_START_SECONDS)
            self._directory = Directory(self._streams, config.default_pipeline)
            self._plans = PlanBook(client)
            cleanup.callback(self._plans.close)
            self._plans.start(deadline_seconds=_START_SECONDS)
            control = config.control
            self._backlog = BacklogMeter(
                Buffer(client).retention(), limit_seconds=control.limit_seconds, safety=control.retention_safety
            )
            self._turnstile = Turnstile(own_cores=control.pool_cores, concurrent=control.concurrent_segments)
            self._ahead = Ahead(most_segments=control.look_ahead_segments)
            self._scout = Scout(client, self._ahead)
            cleanup.callback(self._scout.close)
            self._minds = Minds(self._plans.fit)
            foresight = Foresight(
                self._plans, self._ahead, self._minds, self._turnstile, limit_seconds=self._backlog.limit_seconds
            )
            foresight.start()
            cleanup.callback(foresight.close)
            self._bursting: Bursting | None = None
            if config.burst.targets:
                burst_client = BurstClient(
                    config.burst.targets,
                    in_flight_bytes=config.burst.in_flight_bytes,
                    credentials=channel_credentials(config.burst.tls),
                )
                cleanup.callback(burst_client.close)
                self._bursting = Bursting(config.burst, burst_client)
            self._switcher = Switcher(self._plans, self._ahead, self._minds, foresight, self._bursting)
            self._channel = open_channel(config.inference.target, channel_credentials(config.inference.tls))
            cleanup.callback(self._channel.close)
            self._committer = Committer(
                client,
                transactional_id=f"{config.group}-{config.instance}",
                transaction_timeout_seconds=config.transaction_timeout_seconds,
            )
            self._ownership = Ownership(config, self._open_lane, self._lane_closed, self._commit)
            cleanup.callback(self._ownership.close)
            self._cleanup = cleanup.pop_all()
        self._last_commit = time.monotonic()
        self.last_turn = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._ownership.poll(_POLL_SECONDS)
                self.last_turn = time.monotonic()
                if self.last_turn - self._last_commit >= self._config.commit_interval_seconds:
                    self._commit()
                    self._backlog.export(self._ownership.consumer, list(self._ownership.lanes), datetime.now(UTC))
            self._commit()
        finally:
            self._cleanup.close()

    def _commit(self) -> None:
        """Commit what the lanes have finished. After an abort the same outcomes are tried again at the next turn."""
        self._last_commit = time.monotonic()
        finished: dict[int, Sequence[Outcome]] = {
            partition: outcomes for partition, lane in self._ownership.lanes.items() if (outcomes := lane.finished())
        }
        if not finished:
            return
        outcomes = [outcome for lane_outcomes in finished.values() for outcome in lane_outcomes]
        if not self._committer.commit(self._ownership.consumer, outcomes):
            return
        for partition, lane_outcomes in finished.items():
            self._ownership.lanes[partition].committed(len(lane_outcomes))
        self._backlog.committed(outcomes)
        observe.committed(outcomes, now=datetime.now(UTC))

    def _open_lane(self, partition: int, next_offset: int, states: Sequence[state_pb2.OperatorState]) -> Lane:
        inference = self._config.inference
        models = OipModelClient(
            self._channel,
            max_rows=inference.max_rows,
            call_seconds=inference.call_seconds,
            retry_seconds=inference.retry_seconds,
        )
        self._scout.own(partition, next_offset)
        return Lane(
            partition,
            next_offset,
            SegmentStep(self._directory, models, self._switcher, self._bursting),
            states,
            self._turnstile,
            refused=self._switcher.refused,
            queue_bytes=self._config.queue_bytes,
            uncommitted_segments=self._config.uncommitted_segments,
        )

    def _lane_closed(self, lane: Lane) -> None:
        self._scout.disown(lane.partition)
        self._minds.forget(lane.stream_ids)


def serve(config: DecoderConfig, health: Health, stop: threading.Event) -> None:
    decoder = Decoder(config)
    health.alive = lambda: time.monotonic() - decoder.last_turn < _ALIVE_SECONDS
    health.set_ready(True)
    decoder.run(stop)
