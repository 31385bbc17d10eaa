"""What a decoder knows of a stream is what the register says now."""

from __future__ import annotations

from typing import cast

import pytest
from skyscraper.bus.compacted import CompactedTable
from skyscraper.errors import BadSegment, SkyscraperError
from skyscraper.v1.stream_pb2 import Stream
from skyscraper_decoder.directory import Directory


class Table:
    """A followed topic whose rows the test writes."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def write(self, **fields: object) -> None:
        self.rows[b"a"] = Stream(stream_id="a", **fields).SerializeToString()  # type: ignore[arg-type]

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def refresh(self, *, deadline_seconds: float) -> None:
        assert deadline_seconds > 0


def directory(table: Table, default: str | None = "counting") -> Directory:
    return Directory(cast(CompactedTable, table), default)


def test_a_change_of_knobs_holds_at_the_next_question() -> None:
    table = Table()
    table.write(pipeline="counting", configuration={"frame_rate": "2"}, partition=3)
    one = directory(table)
    assert (one.settings("a").configuration["frame_rate"], one.settings("a").partition) == (2, 3)
    table.write(pipeline="counting", configuration={"frame_rate": "10"}, partition=3, weight=5)
    assert one.settings("a").configuration["frame_rate"] == 10


def test_a_pipeline_or_version_that_is_not_here_is_waited_for_and_found_when_the_register_changes() -> None:
    table = Table()
    one = directory(table)
    for fields in ({"pipeline": "counting", "pipeline_version": "77"}, {"pipeline": "tomorrow"}):
        table.write(**fields)
        with pytest.raises(SkyscraperError, match="stream a waits: pipeline .* is not installed") as waits:
            one.settings("a")
        assert waits.value.retriable
    table.write(pipeline="counting", pipeline_version="1")
    assert one.settings("a").pipeline.version == "1"


def test_a_knob_that_cannot_be_used_is_no_matter_of_waiting() -> None:
    table = Table()
    table.write(pipeline="counting", configuration={"frame_rate": "fast"})
    with pytest.raises(BadSegment, match="'fast' is not one of"):
        directory(table).settings("a")


def test_a_removed_stream_is_an_unregistered_one() -> None:
    table = Table()
    table.write(pipeline="counting", partition=3)
    one = directory(table, default=None)
    assert one.settings("a").partition == 3
    table.rows.clear()
    with pytest.raises(BadSegment, match="not in sky.streams"):
        one.settings("a")
