"""Looks at the first frames: a fault is told, and the time they take is bounded."""

from __future__ import annotations

import pytest
from skyscraper.errors import BadSegment
from skyscraper.media.looking import Looking


class Decoder:
    """Takes so many CPU seconds a look, by its own clock."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.clock, self.looks = 0.0, 0

    def look(self, value: bytes) -> dict[str, float]:
        del value
        self.looks += 1
        self.clock += self.seconds
        if self.error is not None:
            raise self.error
        return {"look_luma": 7.0}


def looking(decoder: Decoder, without: list[str]) -> Looking:
    return Looking("gate", without.append, look=decoder.look, cpu_seconds=lambda: decoder.clock)


def test_every_segment_is_looked_at_where_looks_are_quick() -> None:
    decoder = Decoder(0.05)
    mine = looking(decoder, [])
    assert all(mine.features(b"x", 2.0) == {"look_luma": 7.0} for _ in range(50))


def test_slow_looks_take_no_more_than_their_share_of_a_core() -> None:
    decoder = Decoder(0.5)
    without: list[str] = []
    mine = looking(decoder, without)
    told = [mine.features(b"x", 2.0) for _ in range(100)]
    assert decoder.clock / 200.0 == pytest.approx(0.05, abs=0.005)
    assert without == ["busy"] * sum(not features for features in told) != []


@pytest.mark.parametrize(
    ("error", "reason"), [(BadSegment("corrupt", "no frame"), "corrupt"), (RuntimeError("a bug"), "failed")]
)
def test_a_fault_gives_no_features_and_is_told(error: Exception, reason: str) -> None:
    without: list[str] = []
    assert looking(Decoder(0.01, error), without).features(b"x", 2.0) == {}
    assert without == [reason]
