"""Cutting, as a pure machine over packet metadata."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.media.segmenter import Cut, Dropped, PacketInfo, Segmenter, Step
from skyscraper.media.ticks import TICKS_PER_SECOND

FRAME = TICKS_PER_SECOND // 25


def frame(index: int, *, key: bool = False, size: int = 100, dts: int | None = None) -> PacketInfo:
    return PacketInfo(index * FRAME, (index if dts is None else dts) * FRAME, FRAME, size, key)


def cut_all(
    infos: list[PacketInfo], *, max_bytes: int = 1 << 20, max_open_seconds: float = 10.0, target_seconds: float = 2.0
) -> tuple[list[Cut[int]], list[Dropped]]:
    machine = Segmenter[int](target_seconds=target_seconds, max_open_seconds=max_open_seconds, max_bytes=max_bytes)
    steps: list[Step[int]] = [machine.push(info, number) for number, info in enumerate(infos)]
    steps.append(machine.flush())
    return [cut for step in steps for cut in step.cuts], [drop for step in steps for drop in step.dropped]


def gops(count: int, length: int) -> list[PacketInfo]:
    return [frame(index, key=index % length == 0) for index in range(count * length)]


def open_gops(count: int) -> list[PacketInfo]:
    """I2 B0 B1 P5 B3 B4 …: every keyframe but the first has two leading pictures; 12 frames a GOP."""
    infos = [frame(0, key=True, dts=0)]
    for group in range(count):
        for anchor in range(3, 13, 3):
            at = group * 12 + anchor
            infos.append(frame(at, key=anchor == 12, dts=len(infos)))
            infos.extend(frame(at - back, dts=len(infos) + 2 - back) for back in (2, 1))
    return infos


def test_gops_of_one_second_are_joined_to_two_seconds() -> None:
    cuts, dropped = cut_all(gops(6, 25))
    assert [len(cut.infos) for cut in cuts] == [50, 50, 50]
    assert not dropped


def test_a_keyframe_a_hair_early_still_ends_the_segment() -> None:
    infos = [PacketInfo(info.pts - (9 if info.keyframe and info.pts else 0), info.dts, FRAME, 100, info.keyframe)
             for info in gops(4, 25)]  # fmt: skip
    cuts, _ = cut_all(infos)
    assert [len(cut.infos) for cut in cuts] == [50, 50]


def test_frames_before_the_first_keyframe_are_dropped_and_named() -> None:
    cuts, dropped = cut_all([frame(0), frame(1), frame(2, key=True), frame(3)])
    assert [drop.reason for drop in dropped] == ["before_keyframe", "before_keyframe"]
    assert [info.pts for info in cuts[0].infos] == [2 * FRAME, 3 * FRAME]


def test_open_gops_are_joined_until_the_limit_and_then_lose_only_their_leading_pictures() -> None:
    cuts, dropped = cut_all(open_gops(30), max_open_seconds=4.0)
    assert len(cuts) > 2
    assert {cut.reason for cut in cuts[:-1]} == {"open_gop"}
    assert [drop.reason for drop in dropped] == ["open_gop", "open_gop"] * (len(cuts) - 1)
    assert all(info.pts >= cut.infos[0].pts for cut in cuts for info in cut.infos)


def test_closed_gop_among_open_ones_is_where_the_cut_is_made() -> None:
    infos = open_gops(5)
    start = max(info.pts for info in infos) // FRAME + 1
    infos += [frame(start + index, key=index == 0) for index in range(30)]
    cuts, dropped = cut_all(infos)
    assert not dropped
    assert [cut.reason for cut in cuts] == ["closed_gop", "end"]
    assert cuts[1].start_pts == start * FRAME


def test_a_gop_that_is_only_long_is_published_whole() -> None:
    cuts, dropped = cut_all(gops(2, 25 * 60))
    assert [len(cut.infos) for cut in cuts] == [1500, 1500]
    assert not dropped


def test_a_gop_larger_than_a_message_is_published_as_far_as_it_fits() -> None:
    cuts, dropped = cut_all(gops(2, 100), max_bytes=3000)
    assert [len(cut.infos) for cut in cuts] == [30, 30]
    assert {drop.reason for drop in dropped} == {"gop_too_large"}
    assert len(dropped) == 140


def test_a_segment_that_grows_too_large_ends_at_its_last_keyframe() -> None:
    cuts, dropped = cut_all(gops(8, 10), max_bytes=2500)
    assert [len(cut.infos) for cut in cuts] == [20, 20, 20, 20]
    assert not dropped


def test_intra_only_video_is_cut_by_time() -> None:
    cuts, _ = cut_all([frame(index, key=True) for index in range(150)])
    assert [len(cut.infos) for cut in cuts] == [49, 49, 49, 3]


def test_a_single_frame_larger_than_a_message_is_dropped_alone() -> None:
    infos = [frame(0, key=True, size=9000), frame(1), frame(2, key=True), frame(3)]
    cuts, dropped = cut_all(infos, max_bytes=3000)
    assert [len(cut.infos) for cut in cuts] == [2]
    assert len(dropped) == 2


@st.composite
def streams(draw: st.DrawFn) -> list[PacketInfo]:
    infos: list[PacketInfo] = []
    pts = 0
    for dts in range(draw(st.integers(1, 120))):
        pts += draw(st.integers(1, 4 * FRAME))
        back = draw(st.sampled_from([0, 0, 0, 0, 3 * FRAME]))
        key = draw(st.integers(0, 9)) == 0
        infos.append(PacketInfo(pts - (0 if key else back), dts, FRAME, draw(st.integers(1, 900)), key))
    return infos


@given(streams(), st.integers(500, 20_000), st.floats(0.2, 4.0))
def test_every_packet_is_in_exactly_one_segment_or_dropped_with_a_reason(
    infos: list[PacketInfo], max_bytes: int, target_seconds: float
) -> None:
    cuts, dropped = cut_all(infos, max_bytes=max_bytes, target_seconds=target_seconds)
    kept = [number for cut in cuts for number in cut.payloads]
    assert kept == sorted(set(kept))
    assert len(kept) + sum(drop.frames for drop in dropped) == len(infos)


@given(streams(), st.integers(500, 20_000))
def test_every_segment_starts_with_a_keyframe_fits_a_message_and_needs_nothing_before_it(
    infos: list[PacketInfo], max_bytes: int
) -> None:
    cuts, _ = cut_all(infos, max_bytes=max_bytes)
    for cut in cuts:
        first = cut.infos[0]
        assert first.keyframe
        assert sum(info.size for info in cut.infos) <= max_bytes
        before_trailing = []
        for info in cut.infos[1:]:
            if info.pts >= first.pts:
                break
            before_trailing.append(info)
        assert not before_trailing
        assert cut.end_pts >= cut.start_pts
