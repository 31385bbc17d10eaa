"""Request parameters are numbers in a declared range; what clients send of their own is let through."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper_inference.parameters import OF_CLIENTS, BadParameter, ParameterSpec, Value, read_parameters

SPECS = (ParameterSpec("top_k", int, 1, 8), ParameterSpec("capacity", float, 0.25, 4.0))
values = st.one_of(st.integers(), st.floats(allow_nan=True), st.booleans(), st.text(max_size=5))


@given(st.dictionaries(st.sampled_from(["top_k", "capacity", *OF_CLIENTS]), values))
def test_what_is_read_is_declared_in_range_and_of_its_type_or_nothing_is(given_values: dict[str, Value]) -> None:
    try:
        read = read_parameters("m", SPECS, given_values)
    except BadParameter as error:
        assert "model m" in str(error)  # noqa: PT017 - either way out is right for some values
        return
    assert read.keys() == given_values.keys() - OF_CLIENTS
    for spec in SPECS:
        if spec.name in read:
            assert type(read[spec.name]) is spec.kind
            assert spec.low <= read[spec.name] <= spec.high


@pytest.mark.parametrize("value", [0, 9, 1.5, True, "2", -1])
def test_a_value_outside_is_refused_with_the_range(value: Value) -> None:
    with pytest.raises(BadParameter, match=r"model m: .* is no value of top_k \(whole number from 1 to 8\)"):
        read_parameters("m", SPECS, {"top_k": value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.2, 4.1])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(BadParameter, match=r"capacity \(number from 0.25 to 4\)"):
        read_parameters("m", SPECS, {"capacity": value})


def test_a_whole_number_is_a_number() -> None:
    assert read_parameters("m", SPECS, {"capacity": 2}) == {"capacity": 2.0}


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadParameter, match=r"no parameter 'topk'; it takes top_k .*, capacity"):
        read_parameters("m", SPECS, {"topk": 1})
    with pytest.raises(BadParameter, match="it takes none"):
        read_parameters("m", (), {"topk": 1})


def test_what_tritons_client_sends_of_its_own_changes_nothing() -> None:
    sent: dict[str, Value] = {
        "priority": 1,
        "timeout": 5,
        "sequence_id": "a",
        "triton_enable_empty_final_response": True,
    }
    assert read_parameters("m", SPECS, sent) == {}
