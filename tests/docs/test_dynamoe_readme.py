"""The example in the library's README runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_README = Path(__file__).resolve().parents[2] / "libs" / "dynamoe" / "README.md"


def test_the_readme_example_trains_and_draws_its_report(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", _README.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "example.py").write_text(program, encoding="utf-8")
    # Tensors this small gain nothing from a second thread, and wait for it on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy ")[1].split()[0]) > 0.85
    report = [sys.executable, "-m", "dynamoe", "report", "run.jsonl"]
    subprocess.run(report, cwd=tmp_path, check=True, timeout=200, capture_output=True)
    assert (tmp_path / "run.html").stat().st_size > 10_000
