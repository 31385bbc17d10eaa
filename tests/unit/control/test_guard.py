"""The guard's promise, for any arrivals and any work within the stated uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.admission import require_admissible
from skyscraper.control.errors import Infeasible
from skyscraper.control.guard import allowed, deadline_seconds, slack_core_seconds

WORK = (1.0, 3.0, 10.0, 40.0)
SECONDS = 4.0


@given(
    cores=st.floats(0.3, 8),
    limit=st.floats(4, 20_000),
    choices=st.lists(st.tuples(st.integers(0, 3), st.floats(0.5, 1)), min_size=1, max_size=200),
    uncertainty=st.floats(0, 0.15),
)
def test_the_backlog_never_exceeds_the_limit(
    cores: float, limit: float, choices: list[tuple[int, float]], uncertainty: float
) -> None:
    free = 0.0
    for index, (wish, part) in enumerate(choices):
        arrival = (index + 1) * SECONDS
        now = max(free, arrival)
        assert now - arrival <= limit * (1 + 1e-9) + 1e-6
        slack = slack_core_seconds(now, arrival + SECONDS, limit, cores, uncertainty)
        choice = max(option for option in allowed(WORK, slack) if option <= wish)
        # The worst that the stated uncertainty permits, or better.
        free = now + WORK[choice] * (1 + uncertainty) * part / cores


def test_the_cheapest_is_the_floor_after_an_outage() -> None:
    assert allowed(WORK, -1.0) == [0]
    assert allowed(WORK, 10.0) == [0, 1, 2]


@given(cores=st.floats(0.1, 100), floors=st.lists(st.floats(0.001, 1), min_size=1, max_size=50))
def test_admission_is_the_sum_of_floors(cores: float, floors: list[float]) -> None:
    streams = {f"gate-{index}": value for index, value in enumerate(floors)}
    if sum(floors) <= cores:
        assert require_admissible(streams, cores=cores) <= 1
    else:
        with pytest.raises(Infeasible, match=f"{len(floors)} streams? do(es)? not fit"):
            require_admissible(streams, cores=cores)


@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=60),
    floors=st.floats(0.05, 0.9),
    limit=st.floats(0, 120),
    ask=st.floats(0, 60),
)
def test_whatever_the_deadline_allows_everything_behind_still_starts_in_time(
    gaps: list[float], floors: float, limit: float, ask: float
) -> None:
    """Segments that wait, several at one moment included: the choice that just fits, then the cheapest for all."""
    arrivals = np.cumsum(gaps) - sum(gaps)
    cores, uncertainty = 2.0, 0.25
    work = np.full(len(arrivals), floors)
    limits = np.full(len(arrivals) + 1, limit)
    deadline = deadline_seconds(0.0, arrivals, work, limits, cores=cores, uncertainty=uncertainty)
    if deadline < 0:
        return
    now = min(ask, deadline)
    for arrived, floor in zip(arrivals, work, strict=True):
        assert now <= arrived + limit + 1e-6
        now += floor * (1 + uncertainty) / cores
    assert now <= limit + 1e-6
