"""What Kafka itself says about the buffer: its limits, its bounds, and how old the oldest unprocessed segment is.

Answers come in batches, one request per broker for all partitions, and no video is read: an installation of a thousand
streams can be asked every few seconds. Kafka's clients cannot read sizes on disk (librdkafka has no DescribeLogDirs),
so bytes are offsets times a mean that the caller knows from its segments or reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType

from skyscraper.bus.errors import BusError
from skyscraper.bus.offsets import LATEST, NEWEST, Bounds, Offsets
from skyscraper.bus.topics import SEGMENTS
from skyscraper.control.headroom import DEFAULT_CHECK_SECONDS, Backlog, Retention

# Operators change retention; a minute is soon enough for limits of hours.
RETENTION_SECONDS = 60.0
_REQUEST_SECONDS = 10.0
# Half a segment of usual length: an age that is finer says nothing.
_AGE_SECONDS = 1.0
# Of a segment's record beside its video: key, headers and framing; a test holds that what publishers write fits.
RECORD_OVERHEAD_BYTES = 1024


class Buffer:
    """The limits and the fill of a topic, `sky.segments` if nothing else is said. One thread."""

    def __init__(
        self,
        client: Mapping[str, Any],
        topic: str = SEGMENTS,
        *,
        request_seconds: float = _REQUEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offsets = Offsets(client, topic, request_seconds=request_seconds)
        self._topic = topic
        self._request_seconds = request_seconds
        self._clock = clock
        self._retention: Retention | None = None
        self._read_at = 0.0

    def retention(self) -> Retention:
        """The limits, read anew every minute. Raises BusTimeout, also while older ones are known."""
        if self._retention is None or self._clock() - self._read_at >= RETENTION_SECONDS:
            self._retention = self._read_retention()
            self._read_at = self._clock()
        return self._retention

    def bounds(self, partitions: Iterable[int]) -> dict[int, Bounds]:
        """By partition. Raises BusTimeout, BusError."""
        return self._offsets.bounds(partitions)

    def held_since(self, oldest: Mapping[int, int]) -> dict[int, float]:
        """From when retention by time counts for the record at `oldest[partition]`: seconds since the epoch.

        This is the largest timestamp of what lies in the log up to and including the record: a file is deleted only
        with all before it. A record that is not there yet has none. Found by halving the time with Kafka's own index,
        all partitions at once, about 17 requests; at most a second too early. Raises BusTimeout, BusError.
        """
        started = self._offsets.find({one: OffsetSpec.for_timestamp(0) for one in oldest})
        # Bounds of the answer in milliseconds: a timestamp that was seen at or before the record, and one above all.
        low = {one: at for one, (offset, at) in started.items() if 0 <= offset <= oldest[one]}
        high = self._newest({one: oldest[one] for one in low})
        open_ones = set(low) & set(high)
        while open_ones:
            middle = {one: (low[one] + high[one] + 1) // 2 for one in open_ones}
            found = self._offsets.find({one: OffsetSpec.for_timestamp(at) for one, at in middle.items()})
            for one, (offset, at) in found.items():
                if 0 <= offset <= oldest[one]:
                    low[one] = max(at, middle[one])
                else:
                    high[one] = middle[one] - 1
                # The first record as new as that is the one itself: all before it are older.
                if offset == oldest[one] or high[one] - low[one] < _AGE_SECONDS * 1000:
                    open_ones.discard(one)
        return {one: low[one] / 1000 for one in set(low) & set(high)}

    def backlogs(
        self,
        next_offsets: Mapping[int, int],
        mean_bytes: Mapping[int, float],
        bytes_per_second: Mapping[int, float],
        *,
        now_seconds: float,
    ) -> dict[int, Backlog]:
        """What lies between `next_offsets` (the next to process) and the end, by partition.

        mean_bytes: of a segment's value; bytes_per_second: the densest rate that may come (see
        `skyscraper.control.headroom.Density`); now_seconds: wall clock. What retention has deleted already is not
        part of a backlog. Raises BusTimeout, BusError.
        """
        bounds = self.bounds(next_offsets)
        oldest = {one: max(offset, bounds[one].low) for one, offset in next_offsets.items()}
        waiting = {one: bounds[one].high - offset for one, offset in oldest.items() if bounds[one].high > offset}
        since = self.held_since({one: oldest[one] for one in waiting})
        return {
            one: Backlog(
                max(0.0, now_seconds - since[one]) if one in since else 0.0,
                int(waiting.get(one, 0) * (mean_bytes[one] + RECORD_OVERHEAD_BYTES)),
                bytes_per_second[one],
            )
            for one in next_offsets
        }

    def _newest(self, oldest: Mapping[int, int]) -> dict[int, int]:
        """The largest timestamp of each partition that holds its record, in milliseconds."""
        newest = self._offsets.find(dict.fromkeys(oldest, NEWEST))
        ends = self._offsets.find(dict.fromkeys(oldest, LATEST))
        return {one: at for one, (offset, at) in newest.items() if offset >= 0 and oldest[one] < ends[one][0]}

    def _read_retention(self) -> Retention:
        topic = ConfigResource(ResourceType.TOPIC, self._topic)
        settings = self._offsets.result(self._describe([topic])[topic])
        seconds, size = int(settings["retention.ms"].value), int(settings["retention.bytes"].value)
        if "delete" not in settings["cleanup.policy"].value:
            seconds = size = -1
        return Retention(
            seconds / 1000 if seconds >= 0 else None,
            size if size >= 0 else None,
            int(settings["segment.bytes"].value),
            self._check_seconds(),
        )

    def _check_seconds(self) -> float:
        """The longest check interval of all brokers; Kafka's default where we may not ask (a cluster's ACL)."""
        asked = [ConfigResource(ResourceType.BROKER, str(number)) for number in self._offsets.brokers()]
        answers = self._describe(asked)
        name = "log.retention.check.interval.ms"
        try:
            return max(int(self._offsets.result(future)[name].value) for future in answers.values()) / 1000
        except BusError:
            return DEFAULT_CHECK_SECONDS

    def _describe(self, wanted: list[ConfigResource]) -> dict[ConfigResource, Future[Any]]:
        answers: dict[ConfigResource, Future[Any]] = self._offsets.admin.describe_configs(
            wanted, request_timeout=self._request_seconds
        )
        return answers
