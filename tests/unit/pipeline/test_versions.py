"""Versions of one pipeline, installed side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from skyscraper.errors import ConfigError
from skyscraper.pipeline import PipelineMissing, load_pipeline, reads_state

MODULE = """
class First:
    name, version = "probe-unit", "1"

class Second:
    name, version, reads_state_of = "probe-unit", "2", frozenset({"1"})
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe_unit.py").write_text(MODULE)
    folder = tmp_path / "probe_unit-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-unit\nVersion: 1\n")
    points = {"probe-unit": "First", "probe-unit@2": "Second", "probe-unit@9": "Second", "misnamed": "First"}
    lines = [f"{name} = probe_unit:{of}" for name, of in points.items()]
    (folder / "entry_points.txt").write_text("\n".join(["[skyscraper.pipelines]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_plain_name_gives_the_plain_version_and_others_are_asked_for() -> None:
    assert [load_pipeline("probe-unit", version).version for version in ("", "1", "2")] == ["1", "1", "2"]


@pytest.mark.parametrize(("name", "version"), [("probe-unit", "3"), ("nobody", ""), ("probe-unit", "9")])
def test_what_is_not_installed_is_said_with_what_is(name: str, version: str) -> None:
    with pytest.raises(PipelineMissing, match="is not installed; installed are: counting, "):
        load_pipeline(name, version)


def test_a_package_that_names_its_pipeline_otherwise_than_it_says_is_refused() -> None:
    with pytest.raises(ConfigError, match="the entry point 'misnamed' gives pipeline 'probe-unit'"):
        load_pipeline("misnamed")


def test_state_is_read_by_its_own_version_and_by_one_that_says_so() -> None:
    first, second = load_pipeline("probe-unit"), load_pipeline("probe-unit", "2")
    assert reads_state(first, "probe-unit", "1")
    assert not reads_state(first, "probe-unit", "2")
    assert reads_state(second, "probe-unit", "1")
    assert not reads_state(second, "another", "1")
