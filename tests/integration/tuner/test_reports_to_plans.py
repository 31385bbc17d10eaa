"""Reports in, plans out: on a real broker, with real processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from fitted_profile import reports
from skyscraper.bus.plans import decode_alpha, decode_pool
from skyscraper.bus.topics import POOL_KEY, REPORTS

pytestmark = pytest.mark.broker

Eventually = Callable[..., None]


def test_streams_with_a_profile_get_plans_that_follow_their_reports(town: Any, eventually: Eventually) -> None:
    town.register("gate-1", "gate-2")
    tuner = town.tuner()
    eventually(lambda: {"_pool", "gate-1", "gate-2"} <= town.plans().keys())
    before = town.plans()
    pool = decode_pool(before[POOL_KEY.decode()].pool)
    assert pool.cores == 2.0
    # 600 s of retention, of which 0.8 may be used.
    assert pool.limit_seconds == pytest.approx(480)
    streams = [before[name].stream for name in ("gate-1", "gate-2")]
    assert sum(stream.cores for stream in streams) == pytest.approx(2.0)
    assert all(stream.profile_version == town.fit.version and not stream.refused for stream in streams)
    assert decode_alpha(streams[0], configurations=3).shape == (3, 3)

    # Segments cost 1.2 times their estimates.
    town.report("gate-1", "gate-2", count=200)
    eventually(lambda: town.digested() == {"gate-1": 200, "gate-2": 200})
    eventually(lambda: town.plans()["gate-1"].stream.work_scale == pytest.approx(1.2, abs=0.01))
    assert town.plans()["_pool"].version > before["_pool"].version
    eventually(lambda: tuner.page("readyz"))
    assert tuner.metric('skyscraper_tuner_reports_total{outcome="processed"}') == 400
    assert tuner.metric("skyscraper_tuner_planned_streams") == 2

    versions = [version for _, version in town.history()]
    assert versions == sorted(set(versions)), "versions rise over all keys"
    tuner.signal(signal.SIGTERM)
    assert tuner.wait() == 0


def test_what_comes_and_goes_and_what_is_damaged(town: Any, eventually: Eventually) -> None:
    """A stream that does not fit is refused, one that leaves loses its plan, and no report stops the service."""
    town.register("a", "b")
    tuner = town.tuner(pool_cores=0.2)
    eventually(lambda: "b" in town.plans() and town.plans()["b"].stream.refused)
    assert "0.2" in town.plans()["b"].stream.refusal
    assert town.plans()["_pool"].pool.refused_streams == ["b"]
    producer = Producer(town.client)
    producer.produce(REPORTS, b"\xff\xff no report", b"a", 0)
    producer.produce(REPORTS, None, b"a", 0)
    producer.produce("sky.streams", None, b"a")
    assert producer.flush(30) == 0
    eventually(lambda: "a" not in town.plans() and not town.plans()["b"].stream.refused)
    town.report("b", count=5)
    eventually(lambda: town.digested() == {"b": 5})
    assert tuner.metric('skyscraper_tuner_reports_left_out_total{reason="damaged"}') == 1


def test_reports_of_an_aborted_transaction_never_happened(town: Any, eventually: Eventually) -> None:
    town.register("a")
    town.tuner()
    producer = Producer({**town.client, "transactional.id": "decoder", "enable.idempotence": True})
    producer.init_transactions(30)
    start = time.time() - 20
    for commit in (False, True, False):
        producer.begin_transaction()
        for one in reports("a", town.fit, start_seconds=start, count=10):
            producer.produce(REPORTS, one.SerializeToString(), b"a", 0)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    town.report("a", count=7)
    eventually(lambda: town.digested().get("a", 0) >= 17)
    assert town.digested() == {"a": 17}


def test_without_the_topic_of_reports_it_ends_with_the_remedy(town: Any) -> None:
    admin = AdminClient(town.client)
    admin.delete_topics([REPORTS])[REPORTS].result(30)
    tuner = town.tuner()
    assert tuner.wait() == 2
    assert "skyscraper topics create" in town.logs
