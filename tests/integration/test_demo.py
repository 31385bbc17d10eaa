"""`skyscraper demo`, as a newcomer runs it, shortened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import psutil
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(480)]

COMMAND = [str(Path(sys.executable).parent / "skyscraper")]


def left_running(folder: Path) -> list[str]:
    """Command lines of processes that were started for the demo in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid():
            found.append(line)
    return found


def test_the_demo_accounts_for_every_segment_and_its_table_can_be_queried(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = [*COMMAND, "demo", "--json", "--seconds", "24", "--streams", "2", "--folder", str(folder)]
    done = subprocess.run(demo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    # Two days of twelve segments from two cameras.
    assert result["segments_published"] == result["segments_processed"] == 48
    assert (result["segments_lost"], result["rows_repeated"], result["dead_letters"]) == (0, 0, 0)
    assert result["rows"] > 10
    assert result["quality"].keys() == result["core_seconds"].keys() == {"static", "skyscraper"}
    assert min(result["quality"].values()) > 0
    assert 0 <= result["burst"]["spent_usd"] <= result["burst"]["budget_usd"]
    assert result["burst"]["interruptions"] == 2
    assert result["latency_seconds"]["p50"] <= result["latency_seconds"]["p95"] <= result["latency_seconds"]["p99"]
    day = cv2.imread(result["day_picture"])
    assert day is not None
    picture = cv2.imread(result["picture"])
    assert picture is not None
    assert picture.shape == (576, 768, 3)
    assert left_running(folder) == []
    sql = "SELECT count(*) AS n, count(DISTINCT _stream) AS streams FROM counting"
    query = [*COMMAND, "query", "--json", "--warehouse", str(folder / "warehouse"), sql]
    answer = subprocess.run(query, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == {"n": result["rows"], "streams": 2}


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = [*COMMAND, "demo", "--seconds", "24", "--streams", "1", "--folder", str(folder)]
    process = subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 180
    while not (folder / "logs" / "publisher-static.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in output
    assert left_running(folder) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "--warehouse", "nowhere", "SELECT 1"], "nowhere has no tables"),
        (["topics", "create", "--bootstrap", "127.0.0.1:1"], "Kafka at 127.0.0.1:1 does not answer"),
        (["pipeline", "register", "nothing"], "pipeline 'nothing' is not installed; installed are: counting, covid"),
        (["broker", "start", "--brokers", "2", "--data-dir", "x"], "one, or three for replication"),
    ],
)
def test_a_wrong_command_says_what_to_do_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
