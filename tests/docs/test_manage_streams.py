"""Every command of the how-to, run as it stands there, with the services it speaks of."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from skyscraper.demo.stack import Stack
from skyscraper.demo.watch import Watch
from skyscraper.media.street import StreetSpec, cached_clip
from skyscraper.models.repository import install_models
from skyscraper.processes import spawn, stop

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "manage-streams.md"
MODEL = "nanodet-g"
SECONDS = 90.0


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    return [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


def run(command: list[str]) -> str:
    assert command[:3] == ["uv", "run", "skyscraper"]
    program = str(Path(sys.executable).with_name("skyscraper"))
    done = subprocess.run([program, *command[3:]], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    install_models([MODEL])
    cached_clip(StreetSpec.parse("street:people?seed=1&density=6"))
    with Stack(tmp_path / "stack", partitions=4) as stack:
        stack.start_broker()
        stack.add_inference(models=[MODEL])
        stack.add_decoder()
        stack.start()
        stack.wait_ready()
        monkeypatch.setenv("SKYSCRAPER_KAFKA", stack.broker.bootstrap_servers)
        yield stack


def test_the_pages_commands_work(stack: Stack, tmp_path: Path) -> None:
    start, *shown = commands()
    assert start[:3] == ["uv", "run", "python"]
    # Nobody answers at the page's camera: its publisher goes on trying, and the page's commands work all the same.
    settings = next(block for block in blocks("toml") if "follow = true" in block)
    (tmp_path / "publisher.toml").write_text(settings)
    environment = {
        **os.environ,
        "SKYSCRAPER_PUBLISHER_KAFKA__BOOTSTRAP_SERVERS": stack.broker.bootstrap_servers,
        "SKYSCRAPER_PUBLISHER_SPILL__FOLDER": str(tmp_path / "spill"),
    }
    log = tmp_path / "publisher.log"
    publisher = spawn([sys.executable, *start[3:]], log, environ=environment, cwd=tmp_path)
    watch = Watch(stack.client)
    published = 0

    def processed_more() -> bool:
        watch.poll(0.5)
        view = watch.totals.streams.get("gate-3")
        return view is not None and view.processed > published

    def frame_rates() -> list[str]:
        watch.poll(0.5)
        reports = [seen.report for seen in watch.totals.reports]
        return [report.configuration["frame_rate"] for report in reports if report.stream_id == "gate-3"]

    try:
        for command in shown:
            told = run(command)
            if command[4:6] == ["list", "--json"]:
                entries = [json.loads(line) for line in told.splitlines()]
                assert [(one["stream"], one["publisher"]) for one in entries] == [("gate-3", "0"), ("gate-4", "0")]
            if command[4:6] == ["set-pipeline", "gate-3"]:
                until(lambda: frame_rates()[-1] == "1")
            if command[4:6] in (["add", "gate-3"], ["resume", "gate-3"], ["set-source", "gate-3"]):
                until(processed_more)
                published = watch.totals.streams["gate-3"].processed
        assert run(["uv", "run", "skyscraper", "stream", "list", "--json"]) == ""
        assert frame_rates()[0] == "2"
        assert watch.totals.streams["gate-3"].dead_lettered == 0
    finally:
        watch.close()
        stop(publisher, deadline_seconds=30)
    assert publisher.returncode == 0
    assert "secret" not in log.read_text()
