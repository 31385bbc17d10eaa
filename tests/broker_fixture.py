"""One Kafka broker for all tests that only need some topics of their own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from skyscraper.localkafka import LocalBroker


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """Shared: tests name their own topics and groups, and neither stop it nor look at what others left."""
    with LocalBroker(tmp_path_factory.mktemp("session-broker")) as broker:
        yield broker
