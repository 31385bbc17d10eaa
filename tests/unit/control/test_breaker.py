"""The breaker: opens on failures, probes with one request, and comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.breaker import TRANSITIONS, Breaker, BreakerTerms, State

TERMS = BreakerTerms(failures=3, remembered=5, open_seconds=1.0, most_open_seconds=8.0)


def opened() -> Breaker:
    breaker = Breaker(TERMS)
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.ended(False, 0.0)
    return breaker


def test_three_failures_open_it_and_one_good_probe_closes_it() -> None:
    breaker = opened()
    assert breaker.state is State.OPEN
    assert not breaker.allows(0.9)
    assert breaker.allows(1.0)
    assert not breaker.allows(1.0), "one probe at a time"
    breaker.ended(True, 1.2)
    assert breaker.allows(1.2)


def test_a_failed_probe_doubles_the_pause_up_to_its_bound() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        begun = now
        while not breaker.allows(now):
            now += 0.25
        pauses.append(now - begun)
        breaker.ended(False, now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_a_probe_without_an_answer_does_not_close_the_door_for_ever() -> None:
    breaker = opened()
    assert breaker.allows(1.0)
    assert breaker.allows(1.0 + TERMS.most_open_seconds)


def test_scattered_failures_do_not_open_it() -> None:
    breaker = Breaker(TERMS)
    for number in range(100):
        breaker.ended(number % 3 != 0, float(number))
    assert breaker.state is State.CLOSED


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=60))
def test_only_legal_transitions_and_an_open_breaker_sends_nothing(steps: list[tuple[float, bool, bool]]) -> None:
    breaker, now = Breaker(TERMS), 0.0
    for passed, ask, good in steps:
        now += passed
        before = breaker.state
        sent = ask and breaker.allows(now)
        between = breaker.state
        if sent:
            breaker.ended(good, now)
        for one, other in ((before, between), (between, breaker.state)):
            assert one is other or (one, other) in TRANSITIONS
        assert not (sent and between is State.OPEN)
