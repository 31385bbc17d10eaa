"""Segment headers: CloudEvents in binary mode (CloudEvents 1.0.2, Kafka protocol binding) plus our own `sky_*`.

A message without headers is still a segment: every field is optional to a reader, and unknown headers are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

SEGMENT_TYPE = "skyscraper.segment.v1"

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class SegmentHeaders:
    """What a publisher says of a segment. None means: not said, read it from the bytes or the offset."""

    epoch: int | None = None
    """The publisher's incarnation: Unix milliseconds at which it opened the stream. Larger is newer."""
    sequence: int | None = None
    """Counts the segments of an epoch from 0 without gaps."""
    time: datetime | None = None
    """Wall clock (UTC) of the first frame."""
    pts_seconds: float | None = None
    """Presentation time of the first frame on the publisher's own monotonic clock of the epoch."""
    duration_seconds: float | None = None
    codec: str | None = None
    """FFmpeg's codec name, e.g. h264."""
    frames: int | None = None
    source: str | None = None
    """Where the video comes from, without credentials."""
    features: Mapping[str, float] = field(default_factory=dict)
    """Content features that cost nothing to compute while remuxing."""
    traceparent: str | None = None
    """W3C Trace Context."""


def segment_id(stream_id: str, epoch: int, sequence: int) -> str:
    return f"{stream_id}/{epoch}/{sequence}"


def encode_headers(stream_id: str, headers: SegmentHeaders) -> Headers:
    """The Kafka headers of a segment; `epoch` and `sequence` must be given."""
    if headers.epoch is None or headers.sequence is None:
        raise ValueError("a publisher must number its segments: epoch and sequence are needed")
    texts: dict[str, str | None] = {
        "ce_specversion": "1.0",
        "ce_id": segment_id(stream_id, headers.epoch, headers.sequence),
        "ce_type": SEGMENT_TYPE,
        "ce_source": headers.source or f"/streams/{stream_id}",
        "ce_time": None if headers.time is None else _rfc3339(headers.time),
        "sky_seq": str(headers.sequence),
        "sky_epoch": str(headers.epoch),
        "sky_pts": None if headers.pts_seconds is None else f"{headers.pts_seconds:.6f}",
        "sky_duration_ms": None if headers.duration_seconds is None else str(round(headers.duration_seconds * 1000)),
        "sky_codec": headers.codec,
        "sky_frames": None if headers.frames is None else str(headers.frames),
        "sky_features": ";".join(f"{name}={value:.6g}" for name, value in sorted(headers.features.items())) or None,
        "traceparent": headers.traceparent,
    }
    return [(name, text.encode()) for name, text in texts.items() if text is not None]


def decode_headers(raw: Iterable[tuple[str, bytes | None]] | None) -> tuple[SegmentHeaders, list[str]]:
    """What can be understood of a message's headers, and the names of the headers that are malformed.

    A malformed header counts as not said; nothing is ever refused for its headers alone.
    """
    texts: dict[str, str] = {}
    malformed: list[str] = []
    for name, value in raw or ():
        try:
            if value is not None:
                texts[name] = value.decode()
        except UnicodeDecodeError:
            malformed.append(name)

    def number(name: str) -> float | None:
        try:
            value = float(texts[name]) if name in texts else None
        except ValueError:
            value = float("nan")
        # Rejects nan and infinity, which float() accepts.
        if value is not None and not abs(value) < float("inf"):
            malformed.append(name)
            return None
        return value

    def count(name: str) -> int | None:
        text = texts.get(name)
        # 18 digits fit a signed 64-bit field.
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 18):
            malformed.append(name)
            return None
        return None if text is None else int(text)

    time = None
    if "ce_time" in texts:
        try:
            time = datetime.fromisoformat(texts["ce_time"])
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, OverflowError):
            malformed.append("ce_time")
    duration_ms = count("sky_duration_ms")
    features = {}
    for part in filter(None, texts.get("sky_features", "").split(";")):
        name, _, text = part.partition("=")
        try:
            features[name] = float(text)
        except ValueError:
            malformed.append("sky_features")
    return (
        SegmentHeaders(
            epoch=count("sky_epoch"),
            sequence=count("sky_seq"),
            time=time,
            pts_seconds=number("sky_pts"),
            duration_seconds=None if duration_ms is None else duration_ms / 1000,
            codec=texts.get("sky_codec"),
            frames=count("sky_frames"),
            source=texts.get("ce_source"),
            features=features,
            traceparent=texts.get("traceparent"),
        ),
        malformed,
    )


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
