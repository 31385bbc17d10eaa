"""Which rows travel to which process, and which stay."""

from __future__ import annotations

import pytest
from dynamoe.errors import SettingError
from dynamoe.placement import home_of, hot_experts, part
from hypothesis import given
from hypothesis import strategies as st


@given(st.data())
def test_every_row_goes_to_the_home_of_its_expert_or_stays_with_a_hot_one(data: st.DataObject) -> None:
    processes = data.draw(st.integers(1, 4))
    per_process = data.draw(st.integers(1, 4))
    n = processes * per_process
    places = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    replicas = data.draw(st.lists(st.sampled_from([1, processes]), min_size=n, max_size=n))
    hot = hot_experts(replicas, processes=processes)
    parting = part(places, hot, processes=processes)
    expert_of = [expert for expert, count in enumerate(places) for _ in range(count)]
    away, here = parting.away.tolist(), parting.here.tolist()
    assert sorted([*away, *here]) == list(range(sum(places)))
    assert all((expert_of[place] in hot) is (place in set(here)) for place in range(len(expert_of)))
    homes = [home_of(expert_of[place], per_process=per_process) for place in away]
    assert homes == sorted(homes)
    assert [homes.count(process) for process in range(processes)] == parting.send_sizes
    assert [expert_of[place] for place in here] == [
        expert for expert, count in zip(hot, parting.hot_places, strict=True) for _ in range(count)
    ]


def test_an_expert_in_some_of_the_processes_is_refused() -> None:
    with pytest.raises(SettingError, match="1 or in all 4"):
        hot_experts((1, 2, 4), processes=4)
