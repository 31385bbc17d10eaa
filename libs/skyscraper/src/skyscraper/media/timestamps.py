"""Repair of a source's timestamps into one clock per epoch: decode times strictly increase, nothing runs backwards.

Cameras reboot, files loop, counters wrap at 33 bits, containers leave timestamps out. Every departure from what the
source said is named by a reason, so that it can be counted; nothing is repaired silently.
"""

from __future__ import annotations

from dataclasses import dataclass

from skyscraper.media.ticks import TICKS_PER_SECOND

# MPEG counts time in 33 bits of 90 kHz (26.5 hours); a step of more than half of that is a wrap, not a jump.
WRAP_TICKS = 1 << 33
# A camera may be silent this long, e.g. a recorder that only sends on motion; more is a changed clock.
FORWARD_LIMIT_TICKS = 300 * TICKS_PER_SECOND
# Disorder of up to a second is jitter of the sender; more is a changed clock (reboot, loop, daylight saving).
BACKWARD_LIMIT_TICKS = TICKS_PER_SECOND
# Without decode times, they are taken to trail presentation by at most this: longer than any encoder reorders.
REORDER_LIMIT_TICKS = TICKS_PER_SECOND
# The first guess of a frame's length where the source gives none; replaced by the first measured step.
FIRST_STEP_TICKS = TICKS_PER_SECOND // 25
# A longer step between two frames says nothing about the usual length of a frame.
LONGEST_STEP_TICKS = 10 * TICKS_PER_SECOND

REASONS = ("missing_pts", "missing_dts", "wrap", "jump", "dts_not_increasing", "pts_before_dts")


@dataclass(frozen=True, slots=True)
class Timestamps:
    """Times of one frame in ticks on the clock of the epoch; `reasons` names what was repaired."""

    pts: int
    dts: int
    duration: int
    reasons: tuple[str, ...] = ()


class TimestampRepair:
    """The clock of one epoch. The first frame is presented at 0."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._wraps = 0
        self._last_raw: int | None = None
        self._last_dts: int | None = None
        self._end_pts = 0
        self._step = FIRST_STEP_TICKS

    @property
    def end_pts(self) -> int:
        """When everything repaired so far has been shown, in ticks."""
        return self._end_pts

    def restart(self, gap_ticks: int = 0) -> None:
        """The next frame comes from a new clock (file looped, camera connected again), `gap_ticks` after the last."""
        self._offset = None
        self._last_raw = None
        self._wraps = 0
        if self._last_dts is not None:
            self._end_pts += max(0, gap_ticks)

    def repair(self, pts: int | None, dts: int | None, duration: int = 0) -> Timestamps:
        """The frame's times on the epoch's clock, given its own in ticks; None means the source left it out."""
        reasons: list[str] = []
        if pts is None:
            reasons.append("missing_pts")
        if dts is None:
            reasons.append("missing_dts")
        raw = dts if dts is not None else pts
        if raw is None:
            out_dts = self._end_pts if self._last_dts is None else self._last_dts + self._step
            return self._settle(max(out_dts, self._end_pts), out_dts, duration, reasons)
        raw_pts = _near(raw if pts is None else pts, raw)
        raw, raw_pts = self._unwrapped(raw, raw_pts, reasons)
        if self._offset is None:
            self._offset = self._end_pts - raw_pts
        elif self._last_dts is not None:
            step = raw + self._offset - self._last_dts
            if step > FORWARD_LIMIT_TICKS or step < -BACKWARD_LIMIT_TICKS:
                reasons.append("jump")
                self._offset = self._end_pts - raw_pts
        out_pts = raw_pts + self._offset
        out_dts = raw + self._offset
        if dts is None:
            # A second behind, but never backwards, and never after its own presentation.
            earliest = out_pts - REORDER_LIMIT_TICKS
            out_dts = earliest if self._last_dts is None else max(self._last_dts + 1, earliest)
        return self._settle(out_pts, out_dts, duration, reasons)

    def _unwrapped(self, raw: int, raw_pts: int, reasons: list[str]) -> tuple[int, int]:
        turned = raw + self._wraps
        if self._last_raw is not None and abs(turned - self._last_raw) > WRAP_TICKS // 2:
            near = _near(turned, self._last_raw)
            # A jump that is no whole turn away from the last frame stays a jump.
            if abs(near - self._last_raw) <= FORWARD_LIMIT_TICKS:
                reasons.append("wrap")
                self._wraps += near - turned
                turned = near
        self._last_raw = turned
        return turned, raw_pts + self._wraps

    def _settle(self, pts: int, dts: int, duration: int, reasons: list[str]) -> Timestamps:
        if self._last_dts is not None:
            if dts <= self._last_dts:
                reasons.append("dts_not_increasing")
                dts = self._last_dts + 1
            elif dts - self._last_dts <= LONGEST_STEP_TICKS and "missing_dts" not in reasons:
                self._step = dts - self._last_dts
        if pts < dts:
            reasons.append("pts_before_dts")
            pts = dts
        self._last_dts = dts
        length = duration if 0 < duration <= LONGEST_STEP_TICKS else self._step
        self._end_pts = max(self._end_pts, pts + length)
        return Timestamps(pts, dts, length, tuple(reasons))


def _near(value: int, anchor: int) -> int:
    """`value` moved by whole turns of the 33-bit counter to within half a turn of `anchor`."""
    turns = round((anchor - value) / WRAP_TICKS)
    return value + turns * WRAP_TICKS
