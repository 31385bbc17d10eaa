"""The pool's clock: what was begun holds the cores, one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.pool import PoolClock, begun, ended

work = st.floats(0, 10)


@given(jobs=st.lists(st.tuples(st.floats(0, 5), work, work), max_size=40), cores=st.floats(0.1, 8))
def test_never_more_work_than_the_cores_can_do(jobs: list[tuple[float, float, float]], cores: float) -> None:
    """Whoever waits for the clock takes at most `cores` core-seconds per second, plus the one job at the end."""
    clock, now, done = PoolClock(), 0.0, 0.0
    for pause, estimated, measured in jobs:
        now = clock.start(now + pause)
        assert done <= cores * now + 1e-6
        clock = begun(clock, now_seconds=now, core_seconds=estimated, cores=cores)
        clock = ended(clock, now_seconds=now, estimated=estimated, measured=measured, cores=cores, saturated=False)
        done += measured


def test_an_idle_pool_saves_nothing_up() -> None:
    clock = begun(PoolClock(), now_seconds=0, core_seconds=1, cores=1)
    clock = begun(clock, now_seconds=100, core_seconds=2, cores=1)
    assert clock.free_at_seconds == 102


def test_cores_that_deliver_half_are_noticed_and_forgiven() -> None:
    clock = PoolClock()
    for second in range(1, 60):
        clock = ended(clock, now_seconds=second, estimated=1, measured=1, cores=2, saturated=True)
    assert 0.45 < clock.speed < 0.6
    for second in range(60, 120):
        clock = ended(clock, now_seconds=second, estimated=1, measured=1, cores=2, saturated=False)
    assert clock.speed > 0.95
