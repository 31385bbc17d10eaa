"""Why this configuration: in words that follow from the numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_fleet import FIT, PIPELINE, entry, fleet, rendered, report, stream_plan
from skyscraper.v1 import plan_pb2, report_pb2, stream_pb2
from skyscraper.view.draw import curve, heat
from skyscraper.view.explain import Explanation, Sources, explain, guard_words, price_words
from skyscraper.view.explain_table import explanation
from skyscraper.view.fits import fit_view
from skyscraper.view.pool import pool_view

NOW = 1_764_032_400.0


def sources(stream: str = "gate-1", **changed: object) -> Sources:
    made = fleet(NOW, 10)
    assert made.pool is not None
    assert made.profile is not None
    known: dict[str, object] = {
        "stream_id": stream,
        "entry": made.streams.get(stream),
        "plan_version": 17,
        "plan": made.plans[stream].stream if stream in made.plans else None,
        "pool": pool_view(made.pool),
        "fit": fit_view(made.profile),
        "published_fits": [FIT],
        "reports": [one for one in made.reports if one.report.stream_id == stream][-10:],
    }
    return Sources(**(known | changed))  # type: ignore[arg-type]


def text(told: Explanation, width: int) -> str:
    return rendered(explanation(told, width), width)


def test_a_priced_choice_is_the_best_of_what_is_allowed() -> None:
    told = explain(sources("north-entrance-0"), NOW)
    best = max((one for one in told.choices if one.allowed), key=lambda one: one.score)
    assert best.chosen
    assert (best.index, best.configuration) == (2, "5/320")
    assert told.summary[0].startswith("It runs configuration 2 (5/320): of all configurations that the guard allows")
    assert best.score == pytest.approx(best.value - 0.25 * best.core_seconds)
    assert len(told.last) == 10
    assert told.last[0].age_seconds < told.last[-1].age_seconds


def test_a_guarded_choice_says_what_prices_wanted() -> None:
    told = explain(sources("gate-1"), NOW)
    assert "the best of the 2 configurations that the guard allows" in told.summary[0]
    assert "By prices it would have been configuration 2 (5/320), which takes 0.44." in told.summary
    assert [one.allowed for one in told.choices] == [True, True, False, False, False]


def test_the_floor_says_what_to_do() -> None:
    told = explain(sources("gate-2"), NOW)
    assert "add cores, raise retention, or pause streams" in told.summary[0]
    assert told.guard is not None
    assert "100 s over the limit of 60 min" in guard_words(told.guard)


def test_the_paper_s_rule_names_the_category() -> None:
    reports = [report("gate-1", 1, 0, NOW, rule=report_pb2.RULE_PLANNED)]
    assert "content of category 1" in explain(sources(reports=reports), NOW).summary[0]


def test_prices_come_from_the_time_of_the_content() -> None:
    """A segment that waited for an hour is priced by when it was filmed."""
    late = [report("gate-1", 1, 0, NOW, lag=3_600.0)]
    told = explain(sources(reports=late), NOW)
    assert told.prices is not None
    pool = sources().pool
    assert pool is not None
    assert told.prices.slot == pool.slot(NOW - 3_604)
    assert told.prices.table_price == pytest.approx(pool.price_at(told.prices.slot, pool.level, 3_600.0))
    assert list(told.prices.over_lag) == sorted(told.prices.over_lag)
    assert "looked into its backlog" in price_words(told.prices)


def test_refused_drifted_and_stale_are_said() -> None:
    assert any("add 0.1 cores" in line for line in explain(sources("gate-5"), NOW).summary)
    assert any("drifted" in line for line in explain(sources("gate-7"), NOW).summary)
    made = fleet(NOW, 1)
    assert made.pool is not None
    made.pool.lease_seconds = 5
    assert any("is the tuner running?" in line for line in explain(sources(pool=pool_view(made.pool)), NOW).summary)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"entry": None, "plan": None}, "No stream gate-1 is registered"),
        ({}, "is a decoder running"),
        ({"plan": None, "fit": None, "published_fits": []}, "skyscraper profile publish"),
        ({"plan": None}, "is the tuner running"),
        ({"entry": entry("gate-1", 1, state=stream_pb2.STREAM_STATE_PAUSED)}, "The stream is paused."),
    ],
)
def test_with_no_decision_it_says_what_is_missing(changed: dict[str, object], words: str) -> None:
    told = explain(sources("gate-1", **({"reports": []} | changed)), NOW)
    assert words in " ".join(told.summary)
    assert not told.choices
    assert words in " ".join(text(told, 200).split())


def test_a_fixed_stream_says_what_would_change_that() -> None:
    undecided = [report("gate-1", 1, 0, NOW, decided=False)]
    own = stream_plan("gate-1").stream
    own.policy = plan_pb2.POLICY_FIXED
    assert "Its plan says `fixed`" in " ".join(explain(sources(reports=undecided, plan=own), NOW).summary)
    fixed = [report("gate-1", 1, 0, NOW, rule=report_pb2.RULE_FIXED)]
    assert explain(sources(reports=fixed), NOW).summary[0] == (
        "It runs the fixed configuration of its own entry (5/320)."
    )


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("stream", ["north-entrance-0", "gate-1", "gate-2", "north-entrance-9", "nobody"])
def test_it_fits_the_terminal_and_json(stream: str, width: int) -> None:
    told = explain(sources(stream), NOW)
    assert all(len(line.rstrip()) <= width for line in text(told, width).splitlines())
    assert json.loads(json.dumps(told.as_json(), allow_nan=False))["stream"] == stream


def test_a_decision_of_a_newer_decoder_is_shown_as_far_as_it_is_known() -> None:
    """More configurations than the profile has, and none at all."""
    seen = report("gate-1", 1, 0, NOW)
    seen.report.decision.predicted_quality.extend([5.0])
    seen.report.decision.estimated_core_seconds.extend([4.0])
    told = explain(sources(reports=[seen]), NOW)
    assert told.choices[-1].configuration == "number 5"
    del seen.report.decision.predicted_quality[:]
    del seen.report.decision.estimated_core_seconds[:]
    told = explain(sources(reports=[seen], fit=None), NOW)
    assert told.choices == ()
    assert PIPELINE in text(told, 80)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.integers(1, 8))
def test_a_curve_never_falls_where_its_values_rise(values: list[float], height: int) -> None:
    lines = curve(np.array(sorted(values)), height)
    assert len(lines) == height
    assert all(len(line) == len(values) for line in lines)
    filled = [sum(" ▁▂▃▄▅▆▇█".index(line[one]) for line in lines) for one in range(len(values))]
    if max(values) > 0:
        assert filled == sorted(filled)
        assert filled[-1] == 8 * height


def test_heat_has_one_scale_for_all_rows() -> None:
    assert heat([np.array([0.0, 1.0]), np.array([8.0, 4.0])]) == [" ▁", "█▄"]
    assert heat([np.zeros(3)]) == ["▁▁▁"]
