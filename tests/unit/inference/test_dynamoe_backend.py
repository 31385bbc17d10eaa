"""A dynamoe model in the repository: what is said where it cannot be served, while other models can."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from skyscraper_inference.repository import load_repository
from tiny_models import write_repository

BACKEND = "skyscraper_inference.backends.dynamoe"


def repository(folder: Path, *, parameters: str = "", backend: str = "dynamoe") -> Path:
    write_repository(folder, "echo")
    (folder / "moe" / "1").mkdir(parents=True)
    (folder / "moe" / "config.pbtxt").write_text(f'name: "moe"\nbackend: "{backend}"\nmax_batch_size: 8\n{parameters}')
    return folder


def why_not(folder: Path) -> str:
    models, broken = load_repository(folder, (), execution_providers=("CPUExecutionProvider",), max_batch=8)
    assert list(models) == ["echo"]
    return broken["moe"].reason


def test_without_torch_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, BACKEND, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch is not installed here; install skyscraper-inference[dynamoe]" in why_not(repository(tmp_path))


def test_without_files_the_missing_one_is_named(tmp_path: Path) -> None:
    assert "1/model.json cannot be read" in why_not(repository(tmp_path))


def test_a_setting_that_is_not_known_is_refused(tmp_path: Path) -> None:
    parameters = 'parameters [ { key: "folow" value: { string_value: "capacity" } } ]'
    assert "parameter 'folow' is not known; there are follow, int8_rows" in why_not(
        repository(tmp_path, parameters=parameters)
    )


def test_a_word_to_follow_that_is_none_is_refused(tmp_path: Path) -> None:
    parameters = 'parameters [ { key: "follow" value: { string_value: "weather" } } ]'
    assert "'weather' is not a valid Follow" in why_not(repository(tmp_path, parameters=parameters))


def test_another_backend_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert "backend 'tensorrt' is not served; there are onnxruntime and dynamoe" in why_not(
        repository(tmp_path, backend="tensorrt")
    )
