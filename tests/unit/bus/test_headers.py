"""Segment headers: everything is optional to a reader, nothing is refused for being newer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.bus.headers import SegmentHeaders, decode_headers, encode_headers
from skyscraper.bus.headroom import RECORD_OVERHEAD_BYTES

times = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    epoch=st.integers(0, 10**15),
    sequence=st.integers(0, 10**12),
    time=times,
    duration_ms=st.integers(0, 10**7),
    frames=st.integers(0, 10**6),
    features=st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=8), st.integers(0, 1000).map(float), max_size=4),
)
def test_what_a_publisher_says_is_read_back(
    epoch: int, sequence: int, time: datetime, duration_ms: int, frames: int, features: dict[str, float]
) -> None:
    said = SegmentHeaders(
        epoch=epoch, sequence=sequence, time=time, duration_seconds=duration_ms / 1000, frames=frames, features=features
    )
    read, malformed = decode_headers(encode_headers("gate-3", said))
    assert malformed == []
    assert (read.epoch, read.sequence, read.time, read.frames) == (epoch, sequence, time, frames)
    assert read.duration_seconds == said.duration_seconds
    assert read.features == features


def test_a_message_without_headers_says_nothing() -> None:
    assert decode_headers(None) == (SegmentHeaders(), [])


def test_an_unknown_header_is_ignored() -> None:
    assert decode_headers([("sky_from_the_future", b"\xff\x00")])[0] == SegmentHeaders()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_time", b"yesterday"),
        ("sky_seq", b"-1"),
        ("sky_seq", b"1e3"),
        ("sky_epoch", b"9" * 30),
        ("sky_pts", b"nan"),
        ("sky_pts", b"inf"),
        ("sky_frames", "\u0663".encode()),
        ("sky_features", b"x=much"),
    ],
)
def test_a_malformed_header_counts_as_not_said_and_is_named(name: str, value: bytes) -> None:
    read, malformed = decode_headers([(name, value)])
    assert malformed == [name]
    assert read == SegmentHeaders()


@given(
    st.lists(st.tuples(st.sampled_from(["ce_time", "sky_seq", "sky_pts", "sky_features", "x"]), st.binary(max_size=40)))
)
def test_no_bytes_whatever_raise(raw: list[tuple[str, bytes | None]]) -> None:
    decode_headers(raw)


def test_a_publisher_must_number_its_segments() -> None:
    with pytest.raises(ValueError, match="epoch and sequence"):
        encode_headers("gate-3", SegmentHeaders(epoch=1))


def test_all_headers_of_a_segment_fit_into_what_headroom_adds_for_them() -> None:
    stream_id = "s" * 63
    features = {f"feature_number_{number}": 123_456.789012 for number in range(8)}
    full = SegmentHeaders(
        epoch=1_764_000_000_000,
        sequence=10**9,
        time=datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC),
        pts_seconds=1e6,
        duration_seconds=2.0,
        codec="hevc",
        frames=60,
        source="rtsp://a-camera-with-a-long-name.example.com:8554/live/main/stream",
        features=features,
        traceparent="00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    )
    # Lengths of name and value in front of each, and 100 bytes of batch and record.
    size = sum(len(name) + len(value or b"") + 4 for name, value in encode_headers(stream_id, full))
    assert size + len(stream_id) + 100 <= RECORD_OVERHEAD_BYTES
