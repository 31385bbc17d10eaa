"""Admission: who is in the pool, and that those who are not are told why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.admission import Candidate, admit, require_admissible
from skyscraper.control.errors import Infeasible

candidates = st.lists(st.tuples(st.floats(0.01, 3), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=12).map(
    lambda rows: [Candidate(f"s{index}", floor, weight) for index, (floor, weight) in enumerate(rows)]
)


@given(streams=candidates, cores=st.floats(0.1, 10))
def test_every_stream_is_in_or_out_and_those_in_fit(streams: list[Candidate], cores: float) -> None:
    found = admit(streams, cores=cores)
    assert found.admitted.keys() | found.refused.keys() == {one.stream_id for one in streams}
    assert not found.admitted.keys() & found.refused.keys()
    assert sum(found.admitted.values()) <= cores * (1 + 1e-6)


@given(streams=candidates, cores=st.floats(0.1, 10))
def test_nobody_is_refused_for_a_lighter_or_newer_one(streams: list[Candidate], cores: float) -> None:
    """Without those that go after it, a refused stream would still not fit."""
    found = admit(streams, cores=cores)
    order = sorted(streams, key=lambda one: -one.weight)
    for index, one in enumerate(order):
        if one.stream_id in found.refused:
            before = sum(found.admitted.get(other.stream_id, 0.0) for other in order[:index])
            assert before + one.floor_cores > cores


def test_of_equal_streams_the_newest_goes_first_and_of_unequal_the_lightest() -> None:
    alike = [Candidate(name, 1.0, 1.0) for name in ("old", "middle", "new")]
    assert list(admit(alike, cores=2).refused) == ["new"]
    unequal = [Candidate("light", 1.0, 0.5), Candidate("old", 1.0, 1.0), Candidate("new", 1.0, 1.0)]
    assert list(admit(unequal, cores=2).refused) == ["light"]


def test_a_small_stream_still_gets_in_where_a_large_one_does_not() -> None:
    found = admit([Candidate("large", 3.0, 1.0), Candidate("small", 1.0, 1.0)], cores=2)
    assert list(found.admitted) == ["small"]


def test_a_refusal_shows_the_arithmetic() -> None:
    (why,) = admit([Candidate("a", 1.5, 1.0), Candidate("b", 1.0, 1.0)], cores=2).refused.values()
    assert "needs 1 cores" in why
    assert "take 1.5 of the pool's 2" in why
    assert "add 0.5 cores" in why


def test_the_cheapest_of_all_must_fit() -> None:
    assert require_admissible({"a": 1.0}, cores=2.0) == pytest.approx(0.5)
    with pytest.raises(Infeasible, match="Add 0.2 cores"):
        require_admissible({"a": 1.0, "b": 1.0}, cores=2.0, uncertainty=0.1)
