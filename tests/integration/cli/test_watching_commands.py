"""`skyscraper top`, `explain` and `plan show` on a real broker that holds what services would have written."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_fleet import MadeUp, fleet, publish, report, write_reports
from skyscraper.bus.reports import ReportReader, last_reports
from skyscraper.cli.following import Follower
from skyscraper.cli.watching import open_tables
from skyscraper.localkafka import LocalBroker

pytestmark = pytest.mark.broker

COMMAND = str(Path(sys.executable).parent / "skyscraper")
STREAMS = 12


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path_factory.mktemp("watched")) as started:
        yield started


@pytest.fixture(scope="module")
def client(broker: LocalBroker) -> dict[str, Any]:
    return {"bootstrap.servers": broker.bootstrap_servers, "log_level": 2}


@pytest.fixture(scope="module")
def made(client: dict[str, Any]) -> MadeUp:
    found = fleet(time.time(), STREAMS)
    # Longer ago than the windows reach: not part of any mean, but known as the stream's newest.
    found.reports.insert(0, report("gate-8", 8, 0, found.now - 7_200, quality=99.0, decided=False))
    publish(client, found, partitions=STREAMS)
    return found


def run(client: dict[str, Any], *arguments: str, columns: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments, "--bootstrap", client["bootstrap.servers"]],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "COLUMNS": str(columns)},
    )


def test_top_once_shows_trouble_first(client: dict[str, Any], made: MadeUp) -> None:
    done = run(client, "top", "--once")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{STREAMS} streams")
    assert "of 4 cores" in lines[0]
    assert lines[2].split()[:3] == ["north-entrance-3", "lost", "12"]
    assert lines[-1].split()[:2] == ["gate-4", "paused"]


def test_top_json_is_for_scripts(client: dict[str, Any], made: MadeUp) -> None:
    told = json.loads(run(client, "top", "--json").stdout)
    rows = {row["stream"]: row for row in told["streams"]}
    assert set(rows) == set(made.streams)
    assert told["caveats"] == []
    assert told["pool"]["plan_version"] == 17
    assert rows["gate-2"]["rule"] == "floor"
    assert rows["gate-2"]["backlog_segments"] == 1_850
    # Reports of before the last hour are not read into the means.
    assert rows["gate-8"]["quality_raw"] < 10


def test_explain_says_why(client: dict[str, Any], made: MadeUp) -> None:
    done = run(client, "explain", "gate-1")
    assert done.returncode == 0, done.stderr
    assert "By prices it would have been configuration 2 (5/320)" in done.stdout
    told = json.loads(run(client, "explain", "gate-1", "--json", "--decisions", "25").stdout)
    assert len(told["last"]) == 25
    assert [one["chosen"] for one in told["choices"]] == [False, True, False, False, False]


def test_explain_a_stream_that_nobody_knows(client: dict[str, Any], made: MadeUp) -> None:
    done = run(client, "explain", "nobody")
    assert done.returncode == 1
    assert "No stream nobody is registered" in done.stdout


def test_plan_show(client: dict[str, Any], made: MadeUp) -> None:
    done = run(client, "plan", "show")
    assert done.returncode == 0, done.stderr
    assert "gate-5 is refused" in done.stdout
    told = json.loads(run(client, "plan", "show", "gate-2", "--json").stdout)
    assert [one["stream"] for one in told["streams"]] == ["gate-2"]
    assert len(told["pool"]["price_by_hour"][0]) == 24
    missing = run(client, "plan", "show", "nobody")
    assert missing.returncode == 1
    assert "no plan names the stream nobody" in missing.stderr


@pytest.mark.parametrize("command", [("top", "--once"), ("explain", "gate-1"), ("plan", "show")])
def test_no_broker_is_one_line(command: tuple[str, ...]) -> None:
    done = run({"bootstrap.servers": "127.0.0.1:1"}, *command)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: Kafka at 127.0.0.1:1 does not answer: start it, or name another with --bootstrap"
    )


def test_no_topics_is_one_line(session_broker: LocalBroker) -> None:
    """The shared broker may hold some of them, but not sky.plans: no other test there creates a whole installation."""
    done = run({"bootstrap.servers": session_broker.bootstrap_servers}, "plan", "show")
    if done.returncode == 0:
        pytest.skip("another test has created the topics on the shared broker")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "create the topics with `skyscraper topics create`" in done.stderr


def test_the_newest_reports_are_found_behind_transaction_markers(client: dict[str, Any], made: MadeUp) -> None:
    """A report to a transaction, as a decoder under light load commits: every second offset is a marker."""
    now = time.time()
    for number in range(30):
        write_reports(client, [report("gate-10", 10, 1_000 + number, now)])
    found = last_reports(client, "gate-10", 10, 25, deadline_seconds=30)
    assert [one.report.offset for one in found] == list(range(1_005, 1_030))
    assert last_reports(client, "other", 10, 3, deadline_seconds=30) == []
    assert last_reports(client, "north-entrance-9", 9, 3, deadline_seconds=30) == []


def test_reading_starts_an_hour_ago_and_ends(client: dict[str, Any], made: MadeUp) -> None:
    reader = ReportReader(client, since_seconds=made.now - 60)
    try:
        taken = []
        until = time.monotonic() + 30
        while reader.behind():
            assert time.monotonic() < until
            taken += reader.take(0.1)
    finally:
        reader.close()
    within = [one for one in made.reports if one.committed_seconds >= made.now - 60]
    times = [one.committed_seconds for one in taken if one.report.stream_id != "north-entrance-6"]
    assert min(times) >= made.now - 61
    assert len(times) >= len(within)
    # The stalled stream's last report is older than that, and known all the same.
    assert any(one.report.stream_id == "north-entrance-6" for one in taken)


def test_a_restarted_broker_is_a_caveat_and_then_forgotten(
    broker: LocalBroker, client: dict[str, Any], made: MadeUp
) -> None:
    with open_tables(client) as tables:
        follower = Follower(client, tables)
        try:
            follower.catch_up(30)
            before = {row.stream: row for row in follower.look().rows}
            assert follower.caveats() == []
            broker.kill()
            kept = follower.look()
            assert {row.stream for row in kept.rows} == set(before)
            assert "KAFKA DOES NOT ANSWER" in follower.caveats()[0]
            broker.start()
            write_reports(client, [report("gate-11", 11, 5_000, time.time(), quality=4.0)])
            until = time.monotonic() + 60
            while True:
                follower.wait(0.5)
                (row,) = (one for one in follower.look().rows if one.stream == "gate-11")
                if (
                    not follower.caveats()
                    and row.backlog_segments == 0
                    and row.quality_raw != before["gate-11"].quality_raw
                ):
                    break
                assert time.monotonic() < until, follower.caveats()
        finally:
            follower.close()


def test_the_live_table_draws_on_a_terminal_and_ends_with_ctrl_c(client: dict[str, Any], made: MadeUp) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "top", "--bootstrap", client["bootstrap.servers"], "--every-seconds", "0.3"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": "120", "LINES": "20", "TERM": "xterm"},
    )
    os.close(follower)
    seen = b""
    until = time.monotonic() + 90
    try:
        while seen.count(b"north-entrance-3") < 2:
            assert time.monotonic() < until, seen.decode(errors="replace")
            assert process.poll() is None, seen.decode(errors="replace")
            if select.select([leader], [], [], 1.0)[0]:
                seen += os.read(leader, 65_536)
        process.send_signal(2)
        while process.poll() is None:
            assert time.monotonic() < until
            if select.select([leader], [], [], 0.2)[0]:
                try:
                    seen += os.read(leader, 65_536)
                except OSError:
                    # The terminal is closed with its last process.
                    break
        assert process.wait(20) == 0
        assert b"Traceback" not in seen
    finally:
        process.kill()
        process.wait(10)
        os.close(leader)
