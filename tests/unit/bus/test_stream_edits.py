"""Edits are decisions on the register as it is; made again on a newer one they keep what others did meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.bus.register import Change, Registration
from skyscraper.bus.stream_edits import adding, editing, forgetting, pausing, releasing, resuming, retiring
from skyscraper.bus.streams import merged
from skyscraper.errors import ConfigError
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, STREAM_STATE_PAUSED, STREAM_STATE_REMOVING, Stream

Entries = dict[str, Registration]


def apply(register: Entries, change: Change) -> Entries:
    after = dict(register)
    for offset, (name, stream) in enumerate(change(register, 4).items(), start=len(register)):
        if stream is None:
            del after[name]
        else:
            after[name] = Registration(stream, offset)
    return after


def one(**fields: object) -> Entries:
    return apply({}, adding(Stream(stream_id="a", publisher="p", **fields), None))  # type: ignore[arg-type]


def test_adding_takes_the_lowest_free_partition_and_adding_again_is_refused_unless_it_is_the_same() -> None:
    register = apply(one(), adding(Stream(stream_id="b"), None))
    assert [register[name].stream.partition for name in "ab"] == [0, 1]
    assert register["a"].stream.state == STREAM_STATE_ACTIVE
    assert apply(register, adding(Stream(stream_id="b"), None)) == register
    with pytest.raises(ConfigError, match="exists already"):
        adding(Stream(stream_id="b", source="other"), None)(register, 4)
    with pytest.raises(ConfigError, match="belongs to stream a"):
        adding(Stream(stream_id="c"), 0)(register, 4)


@pytest.mark.parametrize("change", [pausing("a"), resuming("a"), editing("a", lambda _: None), retiring("a")])
def test_an_unknown_stream_is_said(change: Change) -> None:
    with pytest.raises(ConfigError, match="there is no stream a; registered are: none"):
        change({}, 4)


EDITS: list[Callable[[Stream], None]] = [
    lambda entry: setattr(entry, "weight", 3.0),
    lambda entry: setattr(entry, "source", "y"),
    lambda entry: setattr(entry, "pipeline_version", "2"),
    lambda entry: entry.configuration.update({"k": "1"}),
    lambda entry: setattr(entry, "state", STREAM_STATE_PAUSED),
]


@given(st.permutations(EDITS))
def test_edits_of_different_things_are_all_kept_in_any_order(order: list[Callable[[Stream], None]]) -> None:
    register = one()
    for edit in order:
        register = apply(register, editing("a", edit))
    stream = register["a"].stream
    assert (stream.weight, stream.source, stream.pipeline_version) == (3.0, "y", "2")
    assert (dict(stream.configuration), stream.state) == ({"k": "1"}, STREAM_STATE_PAUSED)
    assert all(editing("a", edit)(register, 4) == {} for edit in order)


def test_a_removal_keeps_id_and_partition_until_the_publisher_has_released_the_stream() -> None:
    register = apply(one(), retiring("a"))
    with pytest.raises(ConfigError, match="changed by somebody else"):
        forgetting("a", force=False)(register, 4)
    with pytest.raises(ConfigError, match="is being removed"):
        resuming("a")(register, 4)
    with pytest.raises(ConfigError, match="exists already"):
        adding(Stream(stream_id="a"), None)(register, 4)
    assert apply(register, adding(Stream(stream_id="b"), None))["b"].stream.partition == 1
    assert releasing("a", "another")(register, 4) == {}
    register = apply(register, releasing("a", "p"))
    assert apply(register, retiring("a")) == register
    assert apply(register, forgetting("a", force=False)) == {}


def test_a_stream_in_use_is_not_released() -> None:
    assert releasing("a", "p")(one(), 4) == {}
    assert releasing("a", "p")({}, 4) == {}


def test_what_a_publishers_file_says_wins_and_what_it_does_not_say_stays() -> None:
    register = apply({}, adding(Stream(stream_id="a", weight=2, pipeline="x"), None))
    register = apply(register, pausing("a"))
    said = merged(register, Stream(stream_id="a", source="new", publisher="me"), "me")
    assert (said.weight, said.pipeline, said.source, said.publisher) == (2, "x", "new", "me")
    assert said.state == STREAM_STATE_PAUSED
    assert merged({}, Stream(stream_id="a"), "me").state == STREAM_STATE_ACTIVE


def test_a_publishers_file_cannot_take_a_stream_that_another_follows_or_that_is_being_removed() -> None:
    with pytest.raises(ConfigError, match="captured by the publisher 'p' already"):
        merged(one(), Stream(stream_id="a"), "me")
    assert merged(one(), Stream(stream_id="a"), "p").publisher == ""
    register = apply(one(), retiring("a"))
    assert register["a"].stream.state == STREAM_STATE_REMOVING
    with pytest.raises(ConfigError, match="is being removed"):
        merged(register, Stream(stream_id="a"), "p")
