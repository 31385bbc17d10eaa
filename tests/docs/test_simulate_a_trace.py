"""The how-to's commands on simulated content, as they stand there; those on real video are held by
tests/integration/record."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "simulate-a-trace.md"
README = Path(__file__).parents[2] / "README.md"
# What they need takes minutes to record.
REAL_VIDEO = ("trace record", "trace stretch", "trace show", "fit ", "profile show")


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("uv run ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"skyscraper (trace|simulate|fit|profile)", line)]


def run(line: str, folder: Path) -> str:
    program = str(Path(sys.executable).with_name("skyscraper"))
    done = subprocess.run(
        [program, *shlex.split(line)[1:]], capture_output=True, text=True, timeout=200, check=False, cwd=folder
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def test_the_pages_commands_work(tmp_path: Path) -> None:
    for seed, name in enumerate(("gate-3", "gate-4")):
        run(f"skyscraper trace generate diurnal --days 2 --seed {seed} --segment-seconds 20 --out {name}.npz", tmp_path)
    shown = [line for line in commands(HOW_TO) if not any(part in line for part in REAL_VIDEO)]
    assert len(shown) == 3
    for line in shown:
        run(line, tmp_path)


def test_the_readmes_commands_print_every_policy(tmp_path: Path) -> None:
    told = [run(line, tmp_path) for line in commands(README)][-1]
    for policy in ("static", "videostorm", "chameleon", "skyscraper", "priced", "optimum"):
        assert policy in told
