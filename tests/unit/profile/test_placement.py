"""Placements over cuts of the operator graph, and the simulator that scores them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.profile.place import Burst, OperatorWork, placements
from skyscraper.profile.schedule import Machines, Task, simulate

BURST = Burst(1e-5, 0.5, 1e6, 1e6)
seconds = st.floats(0, 5)
sizes = st.floats(0, 1e7)


@st.composite
def graphs(draw: st.DrawFn) -> list[OperatorWork]:
    count = draw(st.integers(1, 6))
    found = []
    for number in range(count):
        earlier = [f"op-{one}" for one in range(number)]
        after = None if not number else tuple(draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)))
        found.append(OperatorWork(f"op-{number}", draw(seconds), draw(st.booleans()), draw(sizes), after))
    return found


@st.composite
def tasks(draw: st.DrawFn) -> list[Task]:
    count = draw(st.integers(1, 12))
    return [
        Task(
            draw(seconds),
            draw(st.booleans()),
            tuple(draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3))) if number else (),
            draw(sizes),
            draw(sizes),
            draw(seconds),
        )
        for number in range(count)
    ]


@settings(max_examples=100, deadline=None)
@given(graph=graphs(), segment_bytes=sizes)
def test_every_placement_is_worth_something_and_stateful_work_stays(
    graph: list[OperatorWork], segment_bytes: float
) -> None:
    found = placements(graph, segment_bytes, BURST)
    assert found[0].burst_operators == ()
    assert (found[0].usd, found[0].bytes_up, found[0].latency_seconds) == (0, 0, 0)
    stateless = {one.name for one in graph if one.stateless}
    total = sum(one.core_seconds for one in graph)
    for one in found:
        assert set(one.burst_operators) <= stateless
        away = total - one.pool_core_seconds
        assert one.usd == pytest.approx(away * BURST.usd_per_core_second, abs=1e-12)
    for one, other in itertools.permutations(found, 2):
        costs = [(p.pool_core_seconds, p.usd, p.bytes_up, p.bytes_down, p.latency_seconds) for p in (one, other)]
        assert any(mine > theirs for mine, theirs in zip(*costs, strict=True)) or costs[0] == costs[1]


def test_raw_frames_are_not_sent_where_the_compressed_segment_will_do() -> None:
    chain = [
        OperatorWork("decode", 0.1, True, 5e6),
        OperatorWork("detect", 2.0, True, 1e4),
        OperatorWork("track", 0.05, False, 0.0),
    ]
    found = {one.burst_operators: one for one in placements(chain, 5e5, BURST)}
    whole, detect = found[("decode", "detect")], found[("detect",)]
    assert (whole.bytes_up, whole.bytes_down) == (5e5, 1e4)
    assert (detect.bytes_up, detect.latency_seconds > whole.latency_seconds) == (5e6, True)
    assert ("decode",) not in found or found[("decode",)].bytes_down == 5e6


def test_a_branch_can_be_away_alone() -> None:
    graph = [
        OperatorWork("decode", 0.1, True, 1e5),
        OperatorWork("faces", 3.0, True, 1e3, ("decode",)),
        OperatorWork("masks", 1.0, True, 1e3, ("decode",)),
        OperatorWork("join", 0.1, False, 0.0, ("faces", "masks")),
    ]
    found = {one.burst_operators: one for one in placements(graph, 1e6, BURST)}
    assert found[("faces",)].bytes_up == 1e5
    assert found[("faces",)].pool_core_seconds == pytest.approx(1.2)


def test_an_operator_that_needs_a_later_one_is_refused() -> None:
    with pytest.raises(ValueError, match="must come before"):
        placements([OperatorWork("a", 1, True, 1, ("b",)), OperatorWork("b", 1, True, 1)], 1, BURST)


@settings(deadline=None)
@given(work=tasks(), cores=st.integers(1, 4), burst_cores=st.integers(1, 4))
def test_no_schedule_beats_work_over_cores_or_its_longest_chain(work: list[Task], cores: int, burst_cores: int) -> None:
    machines = Machines(cores, burst_cores, 0.3, 1e6, 2e6)
    ends = simulate(work, machines)
    last = max(ends)
    assert last >= sum(one.core_seconds for one in work if not one.burst) / cores - 1e-9
    assert last >= sum(one.core_seconds for one in work if one.burst) / burst_cores - 1e-9
    assert last >= sum(one.segment_bytes for one in work if one.burst) / 1e6 - 1e-9
    for one, end in zip(work, ends, strict=True):
        assert end >= one.begins_seconds + one.core_seconds - 1e-9
        assert all(end >= ends[before] + one.core_seconds - 1e-9 or work[before].burst for before in one.after)


@settings(deadline=None)
@given(work=tasks())
def test_more_burst_machines_than_tasks_are_as_good_as_any_number(work: list[Task]) -> None:
    few = simulate(work, Machines(1, len(work), 0.3, 1e6, 1e6))
    many = simulate(work, Machines(1, None, 0.3, 1e6, 1e6))
    assert few == pytest.approx(many)


def test_sixty_tasks_on_four_cores_take_fifteen_turns() -> None:
    assert max(simulate([Task(1.0, False)] * 60, Machines(4))) == 15.0


def test_the_uplink_is_occupied_in_full_by_one_transfer_after_the_other() -> None:
    ends = simulate([Task(1.0, True, segment_bytes=1e6, sends_bytes=1e6)] * 3, Machines(1, None, 0.2, 1e6, 1e6))
    assert ends == pytest.approx([3.2, 4.2, 5.2])
