"""A real Kafka broker on this machine: for the demo, for tests, and for trying things out."""

from skyscraper.localkafka.broker import LocalBroker
from skyscraper.localkafka.errors import LocalKafkaError

__all__ = ["LocalBroker", "LocalKafkaError"]
