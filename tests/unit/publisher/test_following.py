"""What a publisher reads from the register, and what it adds of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from skyscraper.errors import ConfigError
from skyscraper.v1.stream_pb2 import (
    STREAM_STATE_ACTIVE,
    STREAM_STATE_PAUSED,
    STREAM_STATE_REMOVING,
    Capture,
    Stream,
)
from skyscraper_publisher.config import StreamConfig
from skyscraper_publisher.credentials import read_credentials, with_credentials
from skyscraper_publisher.following import Orders, read_orders
from skyscraper_publisher.remembered import recall, remember, remembered_file


def entry(publisher: str = "me", **fields: object) -> bytes:
    stream = Stream(publisher=publisher, state=STREAM_STATE_ACTIVE, source="x.mp4", partition=3)
    stream.MergeFrom(Stream(**fields))  # type: ignore[arg-type]
    return stream.SerializeToString()


def read(own: dict[str, StreamConfig] | None = None, **entries: bytes) -> Orders:
    return read_orders({name.encode(): value for name, value in entries.items()}, "me", own or {}, lambda text: text)


def test_only_streams_that_name_this_publisher_are_captured() -> None:
    orders = read(mine=entry(), theirs=entry("you"), nobodys=entry(""), broken=b"\xff\xff")
    assert set(orders.wanted) == {"mine"}
    assert orders.partitions == {"mine": 3, "theirs": 3, "nobodys": 3}


def test_paused_streams_and_those_being_removed_are_held() -> None:
    orders = read(a=entry(state=STREAM_STATE_PAUSED), b=entry(state=STREAM_STATE_REMOVING))
    assert not orders.wanted
    assert (set(orders.held), set(orders.removing)) == ({"a", "b"}, {"b"})


def test_pipeline_weight_and_knobs_do_not_change_what_a_capture_depends_on() -> None:
    changed = entry(pipeline="other", weight=7, configuration={"k": "1"}, tenant="t", pipeline_version="2")
    assert read(a=entry()).wanted == read(a=changed).wanted
    assert read(a=entry()).wanted != read(a=entry(source="y.mp4")).wanted
    assert read(a=entry()).wanted != read(a=entry(capture=Capture(pace="max"))).wanted


@pytest.mark.parametrize("capture", [Capture(pace="slow"), Capture(pace="-1"), Capture(loop=True, watch=True)])
def test_an_entry_that_makes_no_sense_is_told_and_not_captured(capture: Capture) -> None:
    orders = read(a=entry(capture=capture))
    assert orders.wanted == {}
    assert "the entry of a in sky.streams cannot be used" in orders.unusable["a"]


def test_a_stream_of_the_own_file_keeps_the_files_settings_and_obeys_the_register() -> None:
    own = {"a": StreamConfig(id="a", source=SecretStr("rtsp://u:hunter2@cam/x"))}
    assert read(own, a=entry()).wanted == own
    assert read(own, a=entry(state=STREAM_STATE_PAUSED)).wanted == {}
    assert read(own, a=entry("you")).wanted == {}


def test_credentials_go_to_their_host_only() -> None:
    known = {"cam": SecretStr("u:p@ss/word"), "cam:8554": SecretStr("v:q")}
    assert with_credentials("rtsp://cam/x", known) == "rtsp://u:p%40ss%2Fword@cam/x"
    assert with_credentials("rtsp://cam:8554/x", known) == "rtsp://v:q@cam:8554/x"
    assert with_credentials("rtsp://CAM/x", known) == "rtsp://u:p%40ss%2Fword@CAM/x"
    for other in ("rtsp://cam.evil/x", "street:people?density=6", "/a/cam/file.mp4", "rtsp://a:b@cam/x", "/dev/video0"):
        assert with_credentials(other, known) == other


def test_a_secret_file_lies_over_the_settings_and_is_never_quoted(tmp_path: Path) -> None:
    file = tmp_path / "secret.toml"
    file.write_text('cam = "u:new"\n"other:554" = "v:w"\n')
    known = read_credentials(file, {"CAM": SecretStr("u:old")})
    assert {host: secret.get_secret_value() for host, secret in known.items()} == {"cam": "u:new", "other:554": "v:w"}
    for text in ("cam = hunter2", 'cam = "hunter2"', "cam = 5"):
        file.write_text(text)
        with pytest.raises(ConfigError) as told:
            read_credentials(file, {})
        assert "hunter2" not in str(told.value)
        assert told.value.__cause__ is None


def test_what_was_wanted_last_is_remembered_without_secrets_and_a_damaged_memory_is_none(tmp_path: Path) -> None:
    file = remembered_file(tmp_path / "spill", "me")
    assert recall(file) == {}
    entries = {b"a": entry(source="rtsp://cam/x"), b"b": b"\x00\xff"}
    remember(file, entries)
    assert recall(file) == entries
    for damaged in ("", "[]", '{"a": 5}', '{"a": "?"}', '{"a'):
        file.write_text(damaged)
        assert recall(file) == {}
