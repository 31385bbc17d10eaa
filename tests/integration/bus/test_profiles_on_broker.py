"""sky.profiles on a real broker: fits under their versions, and none lost by registering a pipeline again."""

from __future__ import annotations

from typing import Any

import pytest
from skyscraper.bus.admin import create_topics
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.errors import BusError
from skyscraper.bus.profiles import describe, profile_key, publish_profile, register_pipeline
from skyscraper.bus.topics import PROFILES, TopicSpec
from skyscraper.localkafka import LocalBroker
from skyscraper.v1 import profile_pb2
from skyscraper_pipelines.counting.pipeline import CountingPipeline

pytestmark = pytest.mark.broker


class Learned(CountingPipeline):
    """A pipeline that no other test registers."""

    name = "learned"


@pytest.fixture
def client(session_broker: LocalBroker) -> dict[str, Any]:
    client = {"bootstrap.servers": session_broker.bootstrap_servers}
    create_topics(client, [TopicSpec(PROFILES, 1, {"cleanup.policy": "compact"})], replication_factor=1)
    return client


def table(client: dict[str, Any]) -> dict[bytes, profile_pb2.Profile]:
    (rows,) = read_compacted(client, PROFILES, deadline_seconds=30).values()
    return {key: profile_pb2.Profile.FromString(value) for key, value in rows.items()}


def fitted(version: str) -> profile_pb2.Profile:
    profile = describe(Learned())
    profile.fit.version = version
    return profile


def test_a_fit_is_there_under_its_version_and_as_the_newest(client: dict[str, Any]) -> None:
    publish_profile(client, fitted("one"))
    publish_profile(client, fitted("two"), current=False)
    found = table(client)
    assert found[profile_key("learned", "one")].fit.version == "one"
    assert found[profile_key("learned", "two")].fit.version == "two"
    assert found[b"learned"].fit.version == "one"


def test_registering_a_pipeline_again_keeps_its_fit_and_renews_the_rest(client: dict[str, Any]) -> None:
    stale = fitted("kept")
    del stale.knobs[:]
    publish_profile(client, stale)
    register_pipeline(client, Learned())
    found = table(client)[b"learned"]
    assert found.fit.version == "kept"
    assert found.knobs == describe(Learned()).knobs


def test_a_profile_without_a_fit_is_not_published(client: dict[str, Any]) -> None:
    with pytest.raises(BusError, match="holds no fit"):
        publish_profile(client, describe(Learned()))
