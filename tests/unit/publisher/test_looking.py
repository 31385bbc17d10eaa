"""Looks at the first frames: a fault is counted, and the time they take is bounded."""

from __future__ import annotations

import pytest
from skyscraper.errors import BadSegment
from skyscraper_publisher import metrics
from skyscraper_publisher.looking import Looking


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


def looking(decoder: Decoder, stream_id: str) -> Looking:
    return Looking(stream_id, look=decoder.look, cpu_seconds=lambda: decoder.clock)


def without(stream_id: str, reason: str) -> float:
    return float(metrics.SEGMENTS_WITHOUT_LOOK.labels(stream_id, reason)._value.get())  # noqa: SLF001


def test_every_segment_is_looked_at_where_looks_are_quick() -> None:
    decoder = Decoder(0.05)
    mine = looking(decoder, "quick")
    assert all(mine.features(b"x", 2.0) == {"look_luma": 7.0} for _ in range(50))


def test_slow_looks_take_no_more_than_their_share_of_a_core() -> None:
    decoder = Decoder(0.5)
    mine = looking(decoder, "slow")
    told = [mine.features(b"x", 2.0) for _ in range(100)]
    assert decoder.clock / 200.0 == pytest.approx(0.05, abs=0.005)
    assert without("slow", "busy") == sum(not features for features in told) > 0


@pytest.mark.parametrize(
    ("error", "reason"), [(BadSegment("corrupt", "no frame"), "corrupt"), (RuntimeError("a bug"), "failed")]
)
def test_a_fault_gives_no_features_and_is_counted(error: Exception, reason: str) -> None:
    mine = looking(Decoder(0.01, error), reason)
    assert mine.features(b"x", 2.0) == {}
    assert without(reason, reason) == 1
