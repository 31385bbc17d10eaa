from __future__ import annotations

from pathlib import Path

import pytest
from skyscraper.errors import ConfigError
from skyscraper.service import load_config
from skyscraper_publisher.config import PublisherConfig


def load(tmp_path: Path, text: str) -> PublisherConfig:
    file = tmp_path / "publisher.toml"
    file.write_text(text)
    return load_config(PublisherConfig, file, {})


def test_a_source_with_a_password_is_not_in_what_check_config_prints(tmp_path: Path) -> None:
    config = load(tmp_path, '[[streams]]\nid = "a"\nsource = "rtsp://u:hunter2@cam/x"\n')
    assert "hunter2" not in str(config.model_dump(mode="json"))
    assert config.streams[0].source.get_secret_value().endswith("cam/x")


def test_two_cameras_of_one_name_are_refused(tmp_path: Path) -> None:
    one = '[[streams]]\nid = "a"\nsource = "x.mp4"\n'
    with pytest.raises(ConfigError, match="named more than once: a"):
        load(tmp_path, one + one)


def test_a_start_time_without_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="append Z for UTC"):
        load(tmp_path, '[[streams]]\nid = "a"\nsource = "x.mp4"\nstart_time = 2026-01-01T00:00:00\n')


@pytest.mark.parametrize("pace", ['"real"', '"max"', "4", "0.5"])
def test_paces(tmp_path: Path, pace: str) -> None:
    assert load(tmp_path, f'[[streams]]\nid = "a"\nsource = "x.mp4"\npace = {pace}\n').streams[0].pace
