"""The plan in force, as it is shown."""

from __future__ import annotations

import json

import pytest
from made_up_fleet import fleet, pool_plan, rendered
from skyscraper.profile.arrays import to_proto
from skyscraper.profile.errors import ProfileError
from skyscraper.view.fits import fit_view
from skyscraper.view.plans import Plans, plans_view
from skyscraper.view.plans_table import plans_table
from skyscraper.view.pool import pool_view

NOW = 1_764_032_400.0


def view(count: int) -> Plans:
    made = fleet(NOW, count)
    assert made.pool is not None
    assert made.profile is not None
    fit = fit_view(made.profile)
    assert fit is not None
    return plans_view(pool_view(made.pool), made.plans, dict.fromkeys(made.plans, fit), NOW)


def text(plans: Plans, width: int) -> str:
    return rendered(plans_table(plans, width), width)


def test_prices_by_hour_rise_with_the_lag_and_peak_where_the_content_does() -> None:
    pool = view(1).pool
    assert pool is not None
    assert pool.lag_seconds == (0.0, 900.0, 1800.0, 3600.0)
    for row in pool.price_by_hour:
        assert len(row) == 24
        assert max(range(24), key=lambda hour: row[hour]) in (16, 17)
    for lower, higher in zip(pool.price_by_hour[:-1], pool.price_by_hour[1:], strict=True):
        assert all(one < other for one, other in zip(lower, higher, strict=True))


def test_a_stream_has_its_share_and_the_papers_mix() -> None:
    (stream,) = view(1).streams
    assert stream.cores_share == 0.125
    assert stream.quality_share == pytest.approx(3.4 / 4.3)
    assert stream.mix[0].configurations == (("1/160", 0.9), ("2/224", 0.1))
    assert [one.share for one in stream.mix] == [0.5, 0.3, 0.2]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_it_fits_the_terminal_and_json(count: int, width: int) -> None:
    plans = view(count)
    told = text(plans, width)
    assert all(len(line.rstrip()) <= width for line in told.splitlines())
    assert len(json.loads(json.dumps(plans.as_json(), allow_nan=False))["streams"]) == count
    if count == 40:
        assert "gate-5 is refused: the cheapest configurations alone take 4.1 cores" in told
    if count == 1:
        assert "of the window" in told


def test_without_a_plan_it_says_who_makes_one() -> None:
    assert "is the tuner running" in text(plans_view(None, {}, {}, NOW), 80)


def test_a_damaged_plan_is_named_and_hides_no_other() -> None:
    made = fleet(NOW, 2)
    assert made.pool is not None
    made.plans["gate-1"].stream.alpha.data = b"?"
    plans = plans_view(pool_view(made.pool), made.plans, {}, NOW)
    assert [one.stream for one in plans.streams] == ["north-entrance-0"]
    assert "gate-1" in plans.damaged[0]
    made.pool.pool.price.CopyFrom(to_proto(made_up := pool_view(pool_plan(NOW)).price[:, :, :3]))
    assert made_up.shape[2] == 3
    with pytest.raises(ProfileError):
        pool_view(made.pool)


def test_a_compressed_day_has_a_clock_of_its_own() -> None:
    plan = pool_plan(NOW)
    plan.pool.day_seconds, plan.pool.slot_seconds = 2_880.0, 10.0
    pool = pool_view(plan)
    assert pool.slot(2_880.0 * 1000 + 1_440.0) == 144
    assert pool.clock(144) == "12:00"
    told = text(plans_view(pool, {}, {}, NOW), 80)
    assert "compressed to 48 min" in told
