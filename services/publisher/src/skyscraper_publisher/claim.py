"""One publisher of a name: a second one that starts under it is noticed by both, by Kafka's own means.

A following publisher captures the streams that name it, so two of one name would capture every stream twice. Each is
the one static member of a consumer group of its own (KIP-345); a newcomer of the same name takes the membership over,
and the one before is told that it is fenced.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException
from skyscraper.bus.topics import STREAMS
from skyscraper.errors import SkyscraperError
from skyscraper.service import KafkaConfig

from skyscraper_publisher.broker import ClientLog

# A publisher killed and started again takes its own membership over at once, whatever this is.
SESSION_SECONDS = 10.0
# librdkafka reports the fencing of a static member as its one fatal error of consumers.
_TAKEN = {
    KafkaError._FATAL,  # noqa: SLF001 - librdkafka's own codes are spelled so
    KafkaError.FENCED_INSTANCE_ID,
}


class Claim:
    """Ask `check` regularly: its polls are also what keeps the membership."""

    def __init__(self, kafka: KafkaConfig, instance: str) -> None:
        self._instance = instance
        self._consumer = Consumer(
            {
                **kafka.client(),
                "group.id": f"sky-publisher-{instance}",
                "group.instance.id": instance,
                "session.timeout.ms": int(SESSION_SECONDS * 1000),
                "heartbeat.interval.ms": 1000,
                "enable.auto.commit": False,
                # The membership is what counts; what the topic says is read elsewhere.
                "auto.offset.reset": "latest",
                "logger": ClientLog(),
            }
        )
        self._consumer.subscribe([STREAMS])

    def check(self) -> None:
        """Raises SkyscraperError where another process has taken the name. A broker that is away changes nothing."""
        message = self._consumer.poll(0)
        error = None if message is None else message.error()
        if error is not None and error.code() in _TAKEN:
            raise SkyscraperError(
                f"another publisher named {self._instance!r} has started, and two would capture every stream twice: "
                f"this one ends. Give each publisher an `instance` of its own ({error.str()})"
            )

    def close(self) -> None:
        try:
            self._consumer.close()
        except KafkaException:
            # Fenced: there is no membership left to give up.
            return
