"""`dynamoe report`: a recorded run becomes a page and a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dynamoe import FfnExperts, MoE
from dynamoe.__main__ import main
from dynamoe.policies import capacity
from dynamoe.record import RunRecorder, read_run


def _record(path: Path) -> None:
    torch.manual_seed(0)
    layer = MoE(FfnExperts(4, 8, 8), 2, capacity=4.0, policy=capacity())
    with path.open("w", encoding="utf-8") as file:
        recorder = RunRecorder(file)
        for _ in range(6):
            layer(torch.rand(64, 8))
            event = layer.step() or layer.wait_for_plan(timeout_seconds=10)
            recorder.step(layer, event)


def test_a_run_is_drawn_as_page_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _record(tmp_path / "run.jsonl")
    run = read_run(tmp_path / "run.jsonl")
    assert len(run.steps) == 6
    assert len(run.events) >= 1
    assert main(["report", str(tmp_path / "run.jsonl")]) == 0
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "capacity shrinks from 4" in page
    assert main(["report", str(tmp_path / "run.jsonl"), "--out", str(tmp_path / "run.png")]) == 0
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()


def test_an_empty_run_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.jsonl").write_text("", encoding="utf-8")
    assert main(["report", str(tmp_path / "run.jsonl")]) == 2
    assert "has no steps" in capsys.readouterr().err
