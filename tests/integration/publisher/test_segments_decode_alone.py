"""Each segment decodes alone, and together they show every frame of the source exactly once, pixel for pixel."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import av
import pytest
from skyscraper.bus.headers import decode_headers
from skyscraper.media.look import LOOK_FEATURES
from skyscraper.media.looking import Looking
from skyscraper.media.sources import VideoInput, parse_source
from skyscraper_publisher import cutting as cutting_module
from skyscraper_publisher.config import StreamConfig
from skyscraper_publisher.cutting import Cutting

Frame = tuple[int, str]
"""Milliseconds and a hash of the pixels."""


def pixels_hash(frame: av.VideoFrame) -> str:
    return sha256(frame.to_ndarray().tobytes()).hexdigest()


def decoded(file: str | io.BytesIO) -> list[Frame]:
    with av.open(file, "r") as video:
        return [
            (
                round((frame.pts or 0) * float(frame.time_base or 0) * 1000),
                sha256(frame.to_ndarray().tobytes()).hexdigest(),
            )
            for frame in video.decode(video=0)
        ]


def published(path: Path, **options: object) -> list[tuple[dict[str, bytes], bytes]]:
    config = StreamConfig.model_validate({"id": "a", "source": str(path), **options})
    source = parse_source(str(path))
    cutting = Cutting(config, epoch=7, shown=source.shown, live=False)
    with VideoInput(source, str(path), open_seconds=5, read_seconds=5) as video:
        segments = [*cutting.segments(video), *cutting.flush()]
    return [(dict(segment.message.headers), segment.message.value) for segment in segments]


def assert_every_frame_once(path: Path, segments: list[tuple[dict[str, bytes], bytes]]) -> None:
    wanted = decoded(str(path))
    start = wanted[0][0]
    got: list[Frame] = []
    for raw, value in segments:
        headers, _ = decode_headers(raw.items())
        frames = decoded(io.BytesIO(value))
        assert len(frames) == headers.frames
        assert headers.pts_seconds is not None
        # The segment's own clock is the epoch's plus a constant, whatever carries it.
        got += [(pts - frames[0][0] + round(headers.pts_seconds * 1000), pixels) for pts, pixels in frames]
    assert [pixels for _, pixels in got] == [pixels for _, pixels in wanted]
    assert max(abs(one[0] - (two[0] - start)) for one, two in zip(got, wanted, strict=True)) <= 1


CLIPS = {
    "h264 with B-frames, mp4": ("libx264", ".mp4", {}),
    "h264, transport stream": ("libx264", ".ts", {}),
    "h264 with open GOPs": ("libx264", ".mp4", {"x264-params": "open-gop=1:keyint=25"}),
    "h264 in avi": ("libx264", ".avi", {}),
    "hevc": ("libx265", ".mp4", {"x265-params": "log-level=none:open-gop=0"}),
    "hevc with open GOPs, no decode times": ("libx265", ".mkv", {"x265-params": "log-level=none"}),
    "mpeg4": ("mpeg4", ".mp4", {}),
    "mpeg4 with packed B-frames": ("mpeg4", ".avi", {"bf": "2"}),
    "mpeg2": ("mpeg2video", ".ts", {}),
    "mjpeg": ("mjpeg", ".avi", {}),
    "vp9": ("libvpx-vp9", ".webm", {}),
    "msmpeg4 as in vtest.avi": ("msmpeg4", ".avi", {}),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clip(name: str, make_clip: Callable[..., Path]) -> None:
    codec, suffix, options = CLIPS[name]
    path = make_clip(codec, suffix, **options)
    assert_every_frame_once(path, published(path))


def test_vtest() -> None:
    folder = Path(os.environ.get("SKYSCRAPER_FOOTAGE", Path(__file__).parents[4] / "shared" / "footage"))
    path = folder / "vtest" / "vtest.avi"
    if not path.is_file():
        pytest.skip(f"no footage at {path}: set SKYSCRAPER_FOOTAGE")
    assert_every_frame_once(path, published(path))


def test_open_gops_without_end_lose_only_leading_pictures(make_clip: Callable[..., Path]) -> None:
    path = make_clip("mpeg2video", ".ts", bf="2", sc_threshold="1000000000")
    segments = published(path, max_open_seconds=2.0)
    wanted = decoded(str(path))
    got = [frame for _, value in segments for frame in decoded(io.BytesIO(value))]
    assert len(segments) > 2
    assert len(wanted) - len(got) == 2 * (len(segments) - 1)
    hashes = [pixels for _, pixels in wanted]
    places = [hashes.index(pixels) for _, pixels in got]
    assert places == sorted(set(places))


def test_headers_say_what_is_inside(make_clip: Callable[..., Path]) -> None:
    segments = published(make_clip(), start_time="2026-01-02T03:04:05Z")
    first, second = (decode_headers(raw.items())[0] for raw, _ in segments[:2])
    assert first.codec == "h264"
    assert (first.epoch, first.sequence, second.sequence) == (7, 0, 1)
    assert first.time is not None
    assert second.time is not None
    assert first.time.isoformat() == "2026-01-02T03:04:05+00:00"
    assert first.duration_seconds == second.pts_seconds
    assert (second.time - first.time).total_seconds() == second.pts_seconds
    assert first.features["frames"] == first.frames
    assert first.features["ip_ratio"] > 1
    assert set(LOOK_FEATURES) < set(first.features)


def test_without_looks_headers_tell_of_packets_only(make_clip: Callable[..., Path]) -> None:
    told = [set(decode_headers(raw.items())[0].features) for raw, _ in published(make_clip(), look=False)]
    assert told
    assert not any(features & set(LOOK_FEATURES) for features in told)


def test_a_look_that_fails_costs_no_segment(make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip()
    wanted = published(path)

    def broken(value: bytes) -> dict[str, float]:
        raise RuntimeError(f"a decoder's bug in {len(value)} bytes")

    monkeypatch.setattr(cutting_module, "Looking", lambda *about: Looking(*about, look=broken))
    got = published(path)
    assert [value for _, value in got] == [value for _, value in wanted]
    for raw, _ in got:
        assert "frames" in decode_headers(raw.items())[0].features


def test_a_run_with_fixed_epoch_and_time_gives_the_same_bytes_again(make_clip: Callable[..., Path]) -> None:
    path = make_clip()
    options = {"start_time": "2026-01-02T03:04:05Z"}
    assert published(path, **options) == published(path, **options)
