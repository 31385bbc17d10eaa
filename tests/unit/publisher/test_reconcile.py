"""What follows from what runs and what is wanted: one capture a stream, and in the end exactly what is wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper_publisher.reconcile import Act, Action, Phase, Running, reconcile

IDS = st.sampled_from(["a", "b", "c"])
SETTINGS = st.integers(0, 2)
WANTED = st.dictionaries(IDS, SETTINGS)
RUNNING = st.dictionaries(
    IDS,
    st.builds(Running, SETTINGS, st.sampled_from(Phase))
    | st.builds(Running, st.none(), st.sampled_from([Phase.DRAINING, Phase.DRAINED])),
)


class World:
    """Applies actions as the publisher does, and lets threads end and outboxes drain when told."""

    def __init__(self, running: dict[str, Running[int]]) -> None:
        self.running = dict(running)
        self.captures = {name: int(one.phase in {Phase.CAPTURING, Phase.STOPPING}) for name, one in running.items()}

    def do(self, action: Action, wanted: dict[str, int]) -> None:
        name = action.stream_id
        if action.act is Act.OPEN:
            assert name not in self.running
            self._begin(name, wanted[name])
        elif action.act is Act.CAPTURE:
            self._begin(name, wanted[name])
        elif action.act is Act.STOP:
            assert self.running[name].phase is Phase.CAPTURING
            self.running[name] = Running(self.running[name].settings, Phase.STOPPING)
        else:
            assert self.running.pop(name).phase is Phase.DRAINED
            assert name not in wanted
        assert self.captures.get(name, 0) <= 1

    def time_passes(self) -> None:
        after = {Phase.STOPPING: Phase.DRAINING, Phase.DRAINING: Phase.DRAINED}
        for name, one in self.running.items():
            if one.phase is Phase.STOPPING:
                self.captures[name] -= 1
            self.running[name] = Running(one.settings, after.get(one.phase, one.phase))

    def _begin(self, name: str, settings: int) -> None:
        self.captures[name] = self.captures.get(name, 0) + 1
        self.running[name] = Running(settings, Phase.CAPTURING)


@given(RUNNING, st.lists(WANTED, min_size=1, max_size=6))
def test_whatever_is_wanted_in_turn_the_end_is_what_is_wanted_last(
    running: dict[str, Running[int]], orders: list[dict[str, int]]
) -> None:
    world = World(running)
    for wanted in orders:
        for action in reconcile(world.running, wanted):
            world.do(action, wanted)
        world.time_passes()
    for _ in range(6):
        for action in reconcile(world.running, orders[-1]):
            world.do(action, orders[-1])
        world.time_passes()
    assert world.running == {name: Running(settings, Phase.CAPTURING) for name, settings in orders[-1].items()}
    assert reconcile(world.running, orders[-1]) == ()


@given(RUNNING, WANTED, IDS, SETTINGS)
def test_a_stream_is_treated_by_its_own_orders_alone(
    running: dict[str, Running[int]], wanted: dict[str, int], name: str, settings: int
) -> None:
    before = [one for one in reconcile(running, wanted) if one.stream_id != name]
    after = [one for one in reconcile(running, {**wanted, name: settings}) if one.stream_id != name]
    assert before == after


@given(RUNNING, WANTED)
def test_nothing_is_forgotten_that_could_still_be_sent(
    running: dict[str, Running[int]], wanted: dict[str, int]
) -> None:
    for action in reconcile(running, wanted):
        if action.act is Act.FORGET:
            assert running[action.stream_id].phase is Phase.DRAINED


def test_another_source_waits_for_the_end_of_the_old_capture() -> None:
    assert reconcile({"a": Running(1, Phase.CAPTURING)}, {"a": 2}) == (Action(Act.STOP, "a"),)
    assert reconcile({"a": Running(1, Phase.STOPPING)}, {"a": 2}) == ()
    assert reconcile({"a": Running(1, Phase.DRAINING)}, {"a": 2}) == (Action(Act.CAPTURE, "a"),)
