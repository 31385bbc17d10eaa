"""Writing plans: one writer at a time, whose versions only rise.

A new planner's writer fences the old one's (see `skyscraper.bus.fenced`). Only then is the newest version read, so no
version is ever given twice and readers see each key's versions rise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from skyscraper.bus import topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.fenced import FencedWriter
from skyscraper.v1 import plan_pb2

log = structlog.get_logger()

# Of a topic of some megabytes at most.
_READ_SECONDS = 10.0


class PlanWriter:
    """Fences all others when it is made. One thread. Raises BusTimeout."""

    def __init__(self, client: Mapping[str, Any], *, transactional_id: str) -> None:
        self._writer = FencedWriter(client, topics.PLANS, transactional_id=transactional_id)
        self.published: dict[bytes, plan_pb2.Plan] = {}
        for table in read_compacted(client, topics.PLANS, deadline_seconds=_READ_SECONDS).values():
            for key, value in table.items():
                try:
                    self.published[key] = plan_pb2.Plan.FromString(value)
                except DecodeError:
                    log.warning("plan_cannot_be_read", key=key.decode(errors="replace"))
        self.version = max((plan.version for plan in self.published.values()), default=0)

    def publish(self, plans: Mapping[bytes, plan_pb2.Plan]) -> None:
        """Write all plans, and remove those of keys that are not among them, in one transaction.

        The pool's goes first. Raises Deposed, BusTimeout; this writer is of no use afterwards.
        """
        version = self.version
        numbered: dict[bytes, plan_pb2.Plan] = {}
        for key in sorted(plans, key=lambda key: (key != topics.POOL_KEY, key)):
            version += 1
            numbered[key] = plan_pb2.Plan()
            numbered[key].CopyFrom(plans[key])
            numbered[key].version = version
        gone = [key for key in self.published if key not in numbered]
        if not numbered and not gone:
            return
        self._writer.commit(
            [
                *((key, plan.SerializeToString(deterministic=True)) for key, plan in numbered.items()),
                *((key, None) for key in gone),
            ]
        )
        self.version, self.published = version, numbered
