"""The thin edge to Kafka: one idempotent producer for all streams of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage
from skyscraper.bus.topics import MAX_MESSAGE_BYTES, SEGMENTS
from skyscraper.service import KafkaConfig

from skyscraper_publisher.outbox import Message, Outcome

log = structlog.get_logger()

# What the client holds for all streams together; a stream's own share is bounded by its outbox.
QUEUE_KBYTES = 256 * 1024
# Segments are large and come every 2 s per stream: waiting to fill a batch would only add delay.
LINGER_MS = 5
# These say that the record itself is wrong: sending it again gives the same answer.
_HOPELESS = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}


class SegmentProducer:
    """Sends segments; never gives one up by itself (`message.timeout.ms=0`): the outbox decides what is lost."""

    def __init__(self, kafka: KafkaConfig, instance: str) -> None:
        self._fatal: str | None = None
        self._lock = threading.Lock()
        self._producer = Producer(
            {
                **kafka.client(),
                "client.id": f"skyscraper-publisher-{instance}",
                "enable.idempotence": True,
                "acks": "all",
                # Video does not compress.
                "compression.type": "none",
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": 0,
                "linger.ms": LINGER_MS,
                "queue.buffering.max.kbytes": QUEUE_KBYTES,
                # A broker that comes back is found within a second or so.
                "reconnect.backoff.max.ms": 1000,
                "error_cb": self._on_error,
                "logger": ClientLog(),
            }
        )

    @property
    def fatal(self) -> str | None:
        """Why this producer can never send again, if so: the process has to be started anew."""
        with self._lock:
            return self._fatal

    def send(self, stream_id: str, message: Message, partition: int, answer: Callable[[Outcome, str], None]) -> bool:
        def delivered(error: KafkaError | None, _: KafkaMessage) -> None:
            if error is None:
                answer(Outcome.STORED, "")
            else:
                answer(Outcome.REFUSED if error.code() in _HOPELESS else Outcome.RETRY, str(error))

        try:
            self._producer.produce(
                SEGMENTS,
                key=stream_id,
                value=message.value,
                headers=list(message.headers),
                partition=partition,
                on_delivery=delivered,
            )
        except BufferError:
            return False
        except KafkaException as error:
            fault = error.args[0]
            if isinstance(fault, KafkaError) and fault.code() in _HOPELESS:
                # The lock of the outbox is re-entrant: it takes this answer in the middle of its own call.
                answer(Outcome.REFUSED, str(fault))
                return True
            self._on_error(fault)
            return False
        return True

    def poll(self, seconds: float) -> None:
        """Hand out the broker's answers for at most so long."""
        self._producer.poll(seconds)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            with self._lock:
                self._fatal = str(error)
        log.warning("kafka", error=str(error), fatal=error.fatal())


class ClientLog:
    """librdkafka's own lines as log events; they name brokers, never credentials."""

    def log(self, level: int, line: str, *arguments: object) -> None:
        log.debug("librdkafka", line=line % arguments if arguments else line, level=level)
