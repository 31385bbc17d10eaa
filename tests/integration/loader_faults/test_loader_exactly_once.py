"""Promises 1 and 2 for the loader alone: the table is the topic, row for row, whatever happens to the loaders."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from skyscraper.bus.admin import create_topics
from skyscraper.bus.topics import TopicSpec
from skyscraper.lakehouse import CatalogConfig, RowTable, open_catalog

from .conftest import PARTITIONS, SCHEMA, LoaderProcess, Rows, eventually, row_json

pytestmark = pytest.mark.broker

KILLS = 12
SEED = 77


@pytest.mark.timeout(240)
def test_loader_killed_at_random_moments(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows, rng = make_rows(), random.Random(SEED)
    loader = make_loader(rows, maintenance={"interval_seconds": 1.0}, commit_interval_seconds=0.2)
    number = 0
    for _ in range(KILLS):
        # The kill lands anywhere between the start of Python and the middle of a commit.
        until = time.monotonic() + rng.uniform(0.3, 5.0)
        while time.monotonic() < until:
            rows.send(range(number, number + 20), partition=rng.randrange(PARTITIONS))
            number += 20
            time.sleep(0.05)
        loader.kill()
        loader.start()
    rows.wait()
    rows.assert_complete()
    assert len(rows.loaded()) == number


@pytest.mark.timeout(180)
def test_two_loaders_share_partitions_and_one_leaves(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows = make_rows()
    first = make_loader(rows, instance="a")
    rows.send(range(100), partition=0)
    rows.wait()
    second = make_loader(rows, instance="b")
    for number in range(100, 1100, 10):
        rows.send(range(number, number + 10), partition=number // 10 % PARTITIONS)
        time.sleep(0.08)
    eventually(lambda: second.metric("skyscraper_loader_rows_total") > 0)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    rows.send(range(1100, 1200), partition=3)
    rows.send(range(1200, 1300), partition=1)
    rows.wait()
    rows.assert_complete()


@pytest.mark.timeout(180)
def test_two_groups_on_the_same_table(
    make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    """A misconfiguration: two loaders that do not know of each other both read every partition."""
    rows = make_rows()
    loaders = [make_loader(rows, instance=name, group=f"{rows.pipeline}-{name}") for name in ("a", "b")]
    for number in range(0, 600, 20):
        rows.send(range(number, number + 20), partition=number // 20 % PARTITIONS)
        time.sleep(0.15)
    rows.wait()
    rows.assert_complete()
    assert sum(one.metric("skyscraper_loader_rewinds_total{") for one in loaders) > 0
    assert all(one.running for one in loaders)


def test_aborted_transactions_are_no_rows(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    rows = make_rows()
    loader = make_loader(rows)
    producer = Producer({**client, "transactional.id": rows.pipeline})
    producer.init_transactions(20)
    for turn in range(4):
        producer.begin_transaction()
        for number in range(turn * 10, turn * 10 + 10):
            producer.produce(rows.topic, row_json(number), b"gate-0", partition=0)
        producer.flush(20)
        if turn % 2:
            producer.abort_transaction(20)
        else:
            producer.commit_transaction(20)
            rows.sent += [("gate-0", number) for number in range(turn * 10, turn * 10 + 10)]
    rows.wait()
    rows.assert_complete()
    # The markers at the end are passed as well: nothing that retention may delete is still to be read.
    assert loader.metric("skyscraper_loader_lag_rows") == 0


@pytest.mark.timeout(180)
def test_locked_catalog_costs_time_and_no_row(
    warehouse: CatalogConfig, make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    """Nothing can be committed for a while: the loader holds no more than it may, and stays a member of its group."""
    rows = make_rows()
    loader = make_loader(rows, max_rows=200)
    rows.send(range(10))
    rows.wait()
    assert warehouse.warehouse_path is not None
    lock = sqlite3.connect(warehouse.warehouse_path / "catalog.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    for number in range(10, 8010, 500):
        rows.send(range(number, number + 500), partition=number // 10 % PARTITIONS)
    eventually(lambda: len(loader.events("commit_waits")) >= 2, 60)
    lock.execute("ROLLBACK")
    lock.close()
    rows.wait()
    rows.assert_complete()
    assert len(loader.events("starting")) == 1


def test_topic_made_anew_is_not_mixed_with_the_old_one(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    """The table says offset 100, the topic has 10: loading on would leave out the first hundred new rows."""
    rows, other = make_rows(schema=None), make_rows()
    catalog = open_catalog(rows.warehouse)
    RowTable(catalog, "rows", rows.pipeline, SCHEMA).append([], after={0: None}, offsets={0: 100})
    rows.send(range(10))
    rows.profile()
    loader = make_loader(rows, other)
    other.send(range(10))
    other.wait()
    other.assert_complete()
    assert rows.keys() == []
    assert loader.metric('skyscraper_loader_waiting_pipelines{reason="topic"}') == 1
    assert "topic ends at 10" in loader.events("table_refused")[0]["error"]
    assert len(loader.events("table_refused")) == 1


def test_pipeline_and_topic_that_come_later_are_found(
    client: dict[str, Any], make_rows: Callable[..., Rows], make_loader: Callable[..., LoaderProcess]
) -> None:
    first = make_rows()
    second = Rows(client, f"{first.pipeline}-later", first.warehouse)
    loader = make_loader(first, second)
    first.send(range(5))
    first.wait()
    second.profile()
    create_topics(client, [TopicSpec(second.topic, PARTITIONS)], replication_factor=1)
    second.send(range(5), partition=2)
    second.wait()
    second.assert_complete()
    assert len(loader.events("starting")) == 1


def test_configuration_is_checked_without_a_broker(tmp_path: Path) -> None:
    import subprocess
    import sys

    config = tmp_path / "loader.toml"
    config.write_text("commit_interval_seconds = -1\n[catalog.properties]\ntoken = 'hunter2'\n")
    command = [sys.executable, "-m", "skyscraper_loader", "--config", str(config), "--check-config"]
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (bad.returncode, "commit_interval_seconds" in bad.stderr) == (2, True)
    config.write_text("[catalog.properties]\ntoken = 'hunter2'\n")
    good = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert good.returncode == 0
    assert "hunter2" not in good.stdout + good.stderr + bad.stdout + bad.stderr
