"""Knobs have finite domains; a configuration gives one value to each."""

from __future__ import annotations

import pytest
from skyscraper.errors import ConfigError
from skyscraper.pipeline import Knob, configure

KNOBS = (Knob("frame_rate", (1, 2, 5), 5, "frames per second"), Knob("model", ("small", "large"), "small", "detector"))


def test_knobs_left_out_take_their_default() -> None:
    assert configure(KNOBS, {"frame_rate": "1"}) == {"frame_rate": 1, "model": "small"}


def test_numbers_may_be_spelled_differently() -> None:
    assert configure(KNOBS, {"frame_rate": "2.0"})["frame_rate"] == 2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"frame_rate": "3"}, "'3' is not one of 1, 2, 5"),
        ({"model": "5"}, "'5' is not one of small, large"),
        ({"zoom": "2"}, "unknown knob 'zoom'; this pipeline has frame_rate, model"),
    ],
)
def test_an_unknown_knob_or_value_is_refused_with_the_choices(chosen: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(KNOBS, chosen)


def test_a_default_outside_the_domain_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="not in its domain"):
        Knob("frame_rate", (1, 2), 3, "")
