from __future__ import annotations

from pathlib import Path

from skyscraper_publisher.epochs import next_epoch


def test_the_epoch_is_the_time_in_milliseconds(tmp_path: Path) -> None:
    assert next_epoch(tmp_path, 1_700_000_000.5) == 1_700_000_000_500


def test_a_clock_set_back_still_gives_a_larger_epoch(tmp_path: Path) -> None:
    first = next_epoch(tmp_path, 1_700_000_000)
    assert next_epoch(tmp_path, 1_600_000_000) == first + 1


def test_a_folder_that_cannot_be_written_leaves_the_clock(tmp_path: Path) -> None:
    assert next_epoch(tmp_path / "missing", 5.0) == 5000
