"""Which of several tuners is the planner: the one that Kafka gives the only partition of sky.plans to.

Membership is static: a planner that is killed and started again under its name leads at once, without anyone waiting
for its session to end; one that stays away is succeeded after the session timeout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, TopicPartition
from skyscraper.bus import topics
from skyscraper.bus.errors import BusError

log = structlog.get_logger()

# A planner that does not come back from a round for so long is succeeded; a round takes seconds.
_MAX_ROUND_SECONDS = 60.0


class Election:
    """Call `poll` often. One thread."""

    def __init__(self, client: Mapping[str, Any], *, group: str, instance: str, session_timeout_seconds: float) -> None:
        self.leading = False
        self._consumer = Consumer(
            {
                **client,
                "group.id": group,
                "group.instance.id": instance,
                "session.timeout.ms": int(session_timeout_seconds * 1000),
                "heartbeat.interval.ms": int(session_timeout_seconds * 1000 / 4),
                "max.poll.interval.ms": int(_MAX_ROUND_SECONDS * 1000),
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
            }
        )
        self._consumer.subscribe(
            [topics.PLANS], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def poll(self, timeout_seconds: float) -> None:
        """Raises BusError where another process has this one's name."""
        message = self._consumer.poll(timeout_seconds)
        error = None if message is None else message.error()
        if error is not None and error.fatal():
            raise BusError(
                f"the election cannot go on: {error.str()}; is there another tuner with the same `instance`?"
            )

    def close(self) -> None:
        self.leading = False
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.assign(places)
        # Nothing of it is read: owning it is all.
        consumer.pause(places)
        self.leading = bool(places)
        log.info("elected" if places else "standing_by")

    def _on_revoke(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        self.leading = False
        consumer.unassign()
        log.info("deposed")
