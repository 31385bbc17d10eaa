"""Every command of the tutorial, run as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from skyscraper.localkafka.install import install_kafka
from skyscraper.media.street import StreetSpec, cached_clip
from skyscraper.models.repository import install_models
from skyscraper.paths import cache_dir

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(240)]

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
SECONDS = 90


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line.split("   #")[0]) for block in blocks for line in block.splitlines() if line]


def as_installed(command: list[str]) -> list[str]:
    """`uv run X` as this environment has X."""
    assert command[:2] == ["uv", "run"], command
    program = command[2]
    found = sys.executable if program == "python" else str(Path(sys.executable).parent / program)
    return [found, *command[3:]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which only the downloads have been made."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 9092)) == 0:
            pytest.skip("something listens on Kafka's port 9092 already; the tutorial uses it")
    install_kafka()
    install_models()
    cached_clip(StreetSpec.parse("street:people?seed=1&density=6"))
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("kafka", "models", "street"):
        (folder / name).symlink_to(cache_dir() / name)
    monkeypatch.setenv("SKYSCRAPER_HOME", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    yield folder
    subprocess.run([*as_installed(["uv", "run", "skyscraper"]), "broker", "stop"], check=False)


def test_the_tutorial_leads_to_rows(home: Path) -> None:
    shown = commands()
    lasting = [command for command in shown if "python" in command or "publish" in command]
    assert len(lasting) == 4
    query = next(command for command in shown if "query" in command)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in shown[: shown.index(query)]:
            if command in lasting:
                log = (home / f"{len(running)}.log").open("wb")
                running.append(subprocess.Popen(as_installed(command), stdout=log, stderr=log, env=dict(os.environ)))
            else:
                subprocess.run(as_installed(command), check=True)
        answer = ""
        deadline = time.monotonic() + SECONDS
        while "2" not in answer:
            assert time.monotonic() < deadline, answer
            assert all(process.poll() is None for process in running)
            time.sleep(1)
            done = subprocess.run(as_installed(query), capture_output=True, text=True, check=False)
            answer = done.stdout if done.returncode == 0 else ""
        assert "people" in answer
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
