"""Repair of timestamps: one monotonic clock per epoch, every repair named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.media.ticks import TICKS_PER_SECOND
from skyscraper.media.timestamps import WRAP_TICKS, TimestampRepair

FRAME = 3600
maybe_time = st.none() | st.integers(-(2**34), 2**34)


@given(st.lists(st.tuples(maybe_time, maybe_time, st.integers(0, 10**7)), max_size=60))
def test_whatever_comes_decode_times_increase_and_nothing_is_shown_before_it_is_decoded(
    raw: list[tuple[int | None, int | None, int]],
) -> None:
    repair = TimestampRepair()
    out = [repair.repair(*times) for times in raw]
    assert all(one.dts < two.dts for one, two in zip(out, out[1:], strict=False))
    assert all(one.dts <= one.pts and one.duration > 0 for one in out)


@given(st.integers(-(2**33), 2**33), st.lists(st.integers(1, 200 * TICKS_PER_SECOND), max_size=40))
def test_a_sound_clock_is_only_shifted_to_zero(start: int, steps: list[int]) -> None:
    repair = TimestampRepair()
    at = start
    for step in [0, *steps]:
        at += step
        times = repair.repair(at, at, FRAME)
        assert (times.pts, times.dts, times.reasons) == (at - start, at - start, ())


def test_b_frames_keep_their_distance_to_decode_time() -> None:
    repair = TimestampRepair()
    out = [repair.repair(pts * FRAME, dts * FRAME, FRAME) for pts, dts in [(0, -2), (3, -1), (1, 0), (2, 1)]]
    assert [(one.pts // FRAME, one.dts // FRAME) for one in out] == [(0, -2), (3, -1), (1, 0), (2, 1)]


def test_the_33_bit_counter_wraps_without_a_jump() -> None:
    repair = TimestampRepair()
    raw = [(WRAP_TICKS - 3 * FRAME + index * FRAME) % WRAP_TICKS for index in range(8)]
    out = [repair.repair(at, at, FRAME) for at in raw]
    assert [one.pts for one in out] == [index * FRAME for index in range(8)]
    assert [reason for one in out for reason in one.reasons] == ["wrap"]


def test_presentation_wraps_before_decoding_does() -> None:
    repair = TimestampRepair()
    raw = [((WRAP_TICKS - 3 * FRAME + (i + 2) * FRAME) % WRAP_TICKS, (WRAP_TICKS - 3 * FRAME + i * FRAME) % WRAP_TICKS)
           for i in range(8)]  # fmt: skip
    out = [repair.repair(pts, dts, FRAME) for pts, dts in raw]
    assert [one.pts for one in out] == [index * FRAME for index in range(8)]


def test_a_rebooted_camera_goes_on_where_it_was() -> None:
    repair = TimestampRepair()
    for index in range(10):
        repair.repair(10**6 + index * FRAME, 10**6 + index * FRAME, FRAME)
    times = repair.repair(0, 0, FRAME)
    assert times.pts == 10 * FRAME
    assert times.reasons == ("jump",)


def test_a_looped_file_goes_on_after_its_last_frame() -> None:
    repair = TimestampRepair()
    for _ in range(3):
        repair.restart()
        times = [repair.repair(index * FRAME, index * FRAME, FRAME) for index in range(5)]
        assert not [reason for one in times for reason in one.reasons]
    assert repair.end_pts == 15 * FRAME


def test_time_away_is_kept_when_a_camera_comes_back() -> None:
    repair = TimestampRepair()
    repair.restart()
    repair.repair(0, 0, FRAME)
    repair.restart(gap_ticks=7 * TICKS_PER_SECOND)
    assert repair.repair(500, 500, FRAME).pts == FRAME + 7 * TICKS_PER_SECOND


def test_missing_timestamps_follow_the_measured_frame_length() -> None:
    repair = TimestampRepair()
    repair.repair(0, 0)
    repair.repair(9000, 9000)
    times = repair.repair(None, None)
    assert times.pts == 18000
    assert times.reasons == ("missing_pts", "missing_dts")


def test_missing_decode_times_leave_reordered_presentation_alone() -> None:
    repair = TimestampRepair()
    out = [repair.repair(pts * FRAME, None, FRAME).pts // FRAME for pts in (0, 4, 2, 1, 3, 8, 6, 5, 7)]
    assert out == [0, 4, 2, 1, 3, 8, 6, 5, 7]
