"""`skyscraper trace record` and `skyscraper fit` on real pixels: what they write, and that a kill costs little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from skyscraper.simulate.trace import load_trace

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]

SOURCE = "street:people?light=curve&time_scale=1440&seconds=60&density=8&seed=3"
RECORD = ["trace", "record", SOURCE, "--segment-seconds", "1", "--configurations", "3", "--search-segments", "2"]


def skyscraper(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("skyscraper")), *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(skyscraper(*arguments), capture_output=True, text=True, timeout=540, check=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded by a run that was killed half-way, and by a second that went on from there."""
    out = tmp_path_factory.mktemp("trace") / "street.npz"
    saved = out.with_suffix(".partial") / "record.npz"
    killed = subprocess.Popen(skyscraper(*RECORD, "--out", str(out)), start_new_session=True)
    deadline = time.monotonic() + 400
    while not saved.exists() and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended by itself"
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(10)
    with np.load(saved) as stored:
        done = int(stored["done"])
    assert 0 < done < 60
    again = run(*RECORD, "--out", str(out))
    assert again.returncode == 0, again.stderr
    return out


def test_a_trace_of_real_pixels_is_complete_after_a_kill(recorded: Path) -> None:
    trace = load_trace(recorded)
    assert trace.segments == 60
    assert 2 <= trace.configurations <= 3
    assert all("frame_rate=" in label for label in trace.labels)
    assert trace.operators == ("decode", "detect", "track")
    assert trace.hours is not None
    assert (np.diff(trace.work_core_seconds.mean(axis=0)) > 0).all()
    assert trace.quality[:, -1].mean() > trace.quality[:, 0].mean()
    busy, night = abs(trace.hours - 17.6) < 1.5, (trace.hours < 5)
    assert trace.quality[busy, -1].mean() > trace.quality[night, -1].mean()


def test_no_worker_outlives_a_killed_recording(recorded: Path) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(recorded) not in listed


def test_a_profile_is_fitted_shown_and_drawn(recorded: Path, tmp_path: Path) -> None:
    profile = tmp_path / "counting.pb"
    made = run("fit", str(recorded), "--out", str(profile))
    assert made.returncode == 0, made.stderr
    assert "no forecaster: it needs more than 4 days" in made.stdout
    shown = run("profile", "show", str(profile), "--json", "--out", str(tmp_path / "pictures"))
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    assert told["pipeline"] == "counting"
    works = [one["cores"] for one in told["configurations"]]
    assert works == sorted(works)
    assert told["configurations"][-1]["burst_usd_per_hour"] > 0
    for name in ("pareto.png", "categories.png"):
        assert (tmp_path / "pictures" / name).stat().st_size > 10_000
    table = run("profile", "show", str(profile))
    assert "content categories" in table.stdout
    second = tmp_path / "again.pb"
    assert run("fit", str(recorded), "--out", str(second)).returncode == 0
    assert second.read_bytes() == profile.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "record", "/nowhere.mp4", "--out", "a.npz"], "no such file"),
        (["trace", "record", "rtsp://camera/1", "--out", "a.npz"], "is live: record from files"),
        (["trace", "record", SOURCE, "--out", "a.npz", "--pipeline", "nothing"], "is not installed"),
        (["trace", "record", SOURCE, "--out", "a.mp4"], "ends in .npz"),
        (["trace", "stretch", "/nowhere.npz", "--out", "a.npz"], "no such file"),
        (["fit", "/nowhere.npz", "--out", "a.pb"], "no such file"),
        (["profile", "show", "/nowhere.pb"], "cannot be read"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    found = subprocess.run(
        skyscraper(*arguments), capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
