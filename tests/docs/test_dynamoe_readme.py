"""The example in the library's README runs as it stands there, and so does the one beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_LIBRARY = Path(__file__).resolve().parents[2] / "libs" / "dynamoe"
# Tensors this small gain nothing from a second thread, and wait for it on a busy machine.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(program: Path | str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=folder,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_example_trains_and_draws_its_report(tmp_path: Path) -> None:
    (program,) = re.findall(
        r"```python\n(.*?)```", (_LIBRARY / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (tmp_path / "example.py").write_text(program, encoding="utf-8")
    out = _run("example.py", folder=tmp_path)
    assert float(out.split("accuracy ")[1].split()[0]) > 0.85
    report = [sys.executable, "-m", "dynamoe", "report", "run.jsonl"]
    subprocess.run(report, cwd=tmp_path, check=True, timeout=200, capture_output=True)
    assert (tmp_path / "run.html").stat().st_size > 10_000


@pytest.mark.parametrize("loss", ["cooperative", "specialised"])
def test_the_paper_s_setting_trains_with_either_loss(tmp_path: Path, loss: str) -> None:
    example = _LIBRARY / "examples" / "digits.py"
    out = _run(example, "--experts", "16", "--loss", loss, "--policy", "local", "--steps", "600", folder=tmp_path)
    assert float(out.split("accuracy ")[1].split()[0]) > 0.8
    assert (tmp_path / "run.jsonl").stat().st_size > 1000
