"""The commands of docs/how-to/watch-and-explain.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_fleet import entry, fleet, publish, report, stream_plan
from skyscraper.localkafka import LocalBroker
from skyscraper.view.top import Attention
from skyscraper.view.words import RULES

pytestmark = pytest.mark.broker

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "watch-and-explain.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalBroker(tmp_path_factory.mktemp("watched")) as broker:
        made = fleet(time.time(), 2)
        made.streams["gate-3"] = entry("gate-3", 2)
        made.plans["gate-3"] = stream_plan("gate-3")
        made.reports += [report("gate-3", 2, number, made.now - 1) for number in range(30)]
        publish({"bootstrap.servers": broker.bootstrap_servers, "log_level": 2}, made, partitions=3)
        yield broker.bootstrap_servers


def test_the_pages_commands_work(servers: str) -> None:
    shown = commands()
    assert len(shown) == 9
    for command in shown:
        # The one that follows would never end; that it draws is held by tests/integration/cli.
        if command == ["skyscraper", "top"]:
            command = [*command, "--once"]
        done = subprocess.run(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "SKYSCRAPER_KAFKA": servers, "COLUMNS": "120"},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "gate-3" in done.stdout
        if "--json" in command:
            json.loads(done.stdout)


def test_the_page_explains_every_state_and_rule() -> None:
    page = PAGE.read_text(encoding="utf-8")
    words = {
        Attention.LOST: "`lost N`",
        Attention.FLOOR: "`over limit`",
        Attention.STALLED: "`stalled`, `not decoded`",
        Attention.HEADROOM: "`headroom`",
        Attention.DEAD_LETTERS: "`dead N`",
        Attention.REFUSED: "`refused`",
        Attention.DRIFT: "`drifted`",
        Attention.GUARDED: "`guarded`",
        Attention.BELOW_TARGET: "`below plan`",
        Attention.SILENT: "`silent`",
    }
    for attention in Attention:
        if attention < Attention.WAITING:
            assert words[attention] in page
    for rule in RULES.values():
        assert rule == "" or f"`{rule}`" in page
