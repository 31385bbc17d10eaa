"""Where to cut a stream into segments: a pure state machine over packet metadata.

A cut is made at the first keyframe at or after the segment duration, if its GOP is *closed*: no picture that follows
it in decode order is presented before it (such leading pictures need the GOP before). Whether that is so is known one
packet after the leading pictures at the latest, so a decision waits for that packet.

What cannot be cut so is decided as follows, and every lost frame is returned as `Dropped` with its reason:

* Open GOPs are joined until a closed one comes or `max_open_seconds` pass; then the cut is made at an open GOP, and
  its leading pictures, which nobody could decode without the segment before, are dropped: `open_gop`.
* A GOP may last as long as it likes (lateness loses nothing), but a segment is at most `max_bytes`. When it grows
  past that, it is cut at its last keyframe; a single GOP larger than `max_bytes` is published as far as it fits and
  its rest, undecodable without the first part, is dropped: `gop_too_large`.
* Frames before the first keyframe are dropped: `before_keyframe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from skyscraper.media.ticks import TICKS_PER_SECOND

T = TypeVar("T")

DropReason = Literal["before_keyframe", "open_gop", "gop_too_large"]
CutReason = Literal["closed_gop", "open_gop", "size", "end"]
# Timestamps of milliseconds and of RTP clocks jitter around the true time; without slack a camera with 1 s GOPs would
# give 3 s segments where 2 s are asked for, whenever its keyframe comes a hair early.
SLACK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """One compressed frame: repaired times in ticks, size in bytes as it will be in the segment."""

    pts: int
    dts: int
    duration: int
    size: int
    keyframe: bool


@dataclass(frozen=True, slots=True)
class Cut(Generic[T]):
    """A whole segment, in decode order, with the caller's payload of every packet."""

    infos: tuple[PacketInfo, ...]
    payloads: tuple[T, ...]
    start_pts: int
    """Presentation time of the first frame shown, in ticks."""
    end_pts: int
    """When the last frame shown ends, in ticks; for a cut at a keyframe that is the keyframe's time."""
    reason: CutReason


@dataclass(frozen=True, slots=True)
class Dropped:
    frames: int
    size: int
    reason: DropReason


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """What one packet brought about."""

    cuts: tuple[Cut[T], ...] = ()
    dropped: tuple[Dropped, ...] = ()


@dataclass(slots=True)
class _Boundary:
    """A keyframe inside the segment at which it could be cut."""

    index: int
    pts: int
    leading: int = 0
    settled: bool = False


class Segmenter(Generic[T]):
    """Cuts one stream. Holds at most `max_bytes` plus one packet."""

    def __init__(self, *, target_seconds: float, max_open_seconds: float, max_bytes: int) -> None:
        self._target = round((target_seconds - min(SLACK_SECONDS, target_seconds / 4)) * TICKS_PER_SECOND)
        self._max_open = round(max_open_seconds * TICKS_PER_SECOND)
        self._max_bytes = max_bytes
        self._items: list[tuple[PacketInfo, T]] = []
        self._bytes = 0
        self._boundaries: list[_Boundary] = []
        self._leading_expected = True
        self._skipping: DropReason | None = "before_keyframe"
        self._cuts: list[Cut[T]] = []
        self._dropped: list[Dropped] = []

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def push(self, info: PacketInfo, payload: T) -> Step[T]:
        if self._skipping is not None:
            if not info.keyframe:
                self._drop(info, self._skipping)
                return self._step()
            self._skipping = None
        if self._items and self._leading_expected:
            if info.pts < self._items[0][0].pts and not info.keyframe:
                self._drop(info, "open_gop")
                return self._step()
            self._leading_expected = False
        self._settle(info)
        if info.keyframe and self._items:
            self._boundaries.append(_Boundary(len(self._items), info.pts))
        self._items.append((info, payload))
        self._bytes += info.size
        while self._bytes > self._max_bytes and self._items:
            self._shrink()
        return self._step()

    def flush(self) -> Step[T]:
        """The input ends or its parameters may change: what is held becomes the last segment."""
        if self._boundaries and not self._boundaries[-1].settled:
            self._decide(self._boundaries[-1])
        if self._items:
            self._cut(len(self._items), "end")
        self._skipping = "before_keyframe"
        self._leading_expected = True
        return self._step()

    def _settle(self, info: PacketInfo) -> None:
        """See whether `info` ends the leading pictures of the newest keyframe, and cut there if it is time."""
        boundary = self._boundaries[-1] if self._boundaries else None
        if boundary is None or boundary.settled:
            return
        if info.pts < boundary.pts and not info.keyframe:
            boundary.leading += 1
        else:
            self._decide(boundary)

    def _decide(self, boundary: _Boundary) -> None:
        boundary.settled = True
        elapsed = boundary.pts - self._start_pts()
        if boundary.leading == 0 and elapsed >= self._target:
            self._cut(boundary.index, "closed_gop")
        elif boundary.leading and elapsed >= max(self._max_open, self._target):
            self._cut(boundary.index, "open_gop")

    def _shrink(self) -> None:
        """The segment is too large: cut at the last keyframe, at best a closed one, else where it still fits."""
        closed = [boundary for boundary in self._boundaries if boundary.leading == 0]
        candidates = closed or self._boundaries
        if candidates:
            self._cut(candidates[-1].index, "size")
            return
        info, _ = self._items.pop()
        self._bytes -= info.size
        self._drop(info, "gop_too_large")
        self._skipping = "gop_too_large"
        if self._items:
            self._cut(len(self._items), "size")
        self._leading_expected = True

    def _cut(self, index: int, reason: CutReason) -> None:
        head, rest = self._items[:index], self._items[index:]
        infos = tuple(info for info, _ in head)
        ends = max(info.pts + info.duration for info in infos)
        # A gap before the next keyframe belongs to the segment before it; overlapping durations do not.
        end_pts = rest[0][0].pts if rest and reason in {"closed_gop", "size"} else ends
        start_pts = min(info.pts for info in infos)
        self._cuts.append(Cut(infos, tuple(payload for _, payload in head), start_pts, max(end_pts, start_pts), reason))
        leading = next((found.leading for found in self._boundaries if found.index == index), 0)
        for info, _ in rest[1 : 1 + leading]:
            self._drop(info, "open_gop")
        self._items = rest[:1] + rest[1 + leading :]
        self._bytes = sum(info.size for info, _ in self._items)
        self._boundaries = [
            _Boundary(found.index - index - leading, found.pts, found.leading, found.settled)
            for found in self._boundaries
            if found.index > index
        ]
        # With only its keyframe known, the new segment's leading pictures may still come.
        self._leading_expected = len(self._items) <= 1

    def _start_pts(self) -> int:
        return self._items[0][0].pts

    def _drop(self, info: PacketInfo, reason: DropReason) -> None:
        self._dropped.append(Dropped(1, info.size, reason))

    def _step(self) -> Step[T]:
        step = Step(tuple(self._cuts), tuple(self._dropped))
        self._cuts, self._dropped = [], []
        return step
