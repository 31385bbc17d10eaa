"""What the table of the fleet says, and in what order."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from made_up_fleet import MadeUp, entry, fleet, lost, rendered, report
from skyscraper.bus.offsets import Bounds
from skyscraper.bus.reports import Seen
from skyscraper.control.headroom import Retention
from skyscraper.view.fits import fit_view
from skyscraper.view.fleet import Fleet
from skyscraper.view.pool import pool_view
from skyscraper.view.top import Attention, Row, Sources, Top, head_line, top
from skyscraper.view.top_table import fitting_rows, top_table

NOW = 1_764_032_400.0
RETENTION = Retention(21_600, 1 << 30, 1 << 27, 1.0)


def sources(made: MadeUp) -> Sources:
    fit = None if made.profile is None else fit_view(made.profile)
    return Sources(
        streams=made.streams,
        plans={name: plan.stream for name, plan in made.plans.items()},
        pool=None if made.pool is None else pool_view(made.pool),
        fits={} if fit is None else dict.fromkeys(made.streams, fit),
        bounds={partition: Bounds(0, end) for partition, end in made.ends.items()},
        retention=RETENTION,
    )


def taken(reports: list[Seen], owners: dict[int, str] | None = None) -> Fleet:
    found = Fleet()
    for one in reports:
        found.take(one, owners or {})
    return found


def look(made: MadeUp) -> Top:
    return top(taken(made.reports), sources(made), made.now)


def row(found: Top, stream: str) -> Row:
    return next(one for one in found.rows if one.stream == stream)


def shown(found: Top, width: int, most_rows: int | None = None) -> list[str]:
    return rendered(top_table(found, width, most_rows=most_rows), width).splitlines()


def test_what_needs_attention_comes_first_and_what_is_paused_last() -> None:
    found = look(fleet(NOW, 40))
    states = [one.state for one in found.rows]
    assert states[:7] == ["lost 12", "over limit", "stalled", "refused", "drifted", "guarded", "no report"]
    assert states[-1] == "paused"
    assert set(states[7:-1]) == {"ok"}
    assert found.head.need_attention == 6
    attention = [one.attention for one in found.rows]
    assert attention == sorted(attention)


def test_quality_is_a_share_of_what_the_dearest_reaches() -> None:
    found = row(look(fleet(NOW, 1)), "north-entrance-0")
    assert found.quality_now == pytest.approx(3.2 / 4.3, abs=0.01)
    assert found.quality_hour == pytest.approx(3.2 / 4.3, abs=0.01)
    assert found.quality_target == pytest.approx(3.4 / 4.3)
    assert (found.configuration, found.rule, found.category) == ("5/320", "priced", 1)


def test_without_profile_and_plan_the_pipelines_own_number_is_shown() -> None:
    made = fleet(NOW, 1)
    made.pool, made.profile = None, None
    made.plans.clear()
    made.reports = [report("north-entrance-0", 0, 5, NOW - 1, decided=False)]
    found = look(made)
    assert (found.rows[0].rule, found.rows[0].quality_now, found.rows[0].quality_raw) == ("fixed", None, 3.2)
    assert "no plan" in head_line(found.head)
    assert any("3.2" in line and "nanodet-g" in line for line in shown(found, 120))


def test_work_is_a_share_of_the_pool() -> None:
    found = look(fleet(NOW, 1))
    # 0.2 cores per second of video, which comes in real time: over the three minutes that were reported.
    assert found.rows[0].cores == pytest.approx(0.2, rel=0.05)
    assert found.rows[0].work_share == pytest.approx(0.05, rel=0.05)
    assert found.head.cores_used == pytest.approx(found.rows[0].cores)


def test_a_backlog_that_nobody_works_off_grows_older_and_stands_out() -> None:
    made = fleet(NOW, 1)
    made.ends[0] += 30
    later = replace(made, now=NOW + 300)
    before, after = look(made).rows[0], look(later).rows[0]
    assert before.backlog_segments == after.backlog_segments == 30
    assert (before.state, after.state) == ("ok", "stalled")
    assert after.lag_seconds is not None
    assert before.lag_seconds is not None
    assert after.lag_seconds == pytest.approx(before.lag_seconds + 300)
    assert after.headroom_seconds <= before.headroom_seconds


def test_a_stream_whose_segments_nobody_decodes_says_so() -> None:
    made = MadeUp(NOW, streams={"new": entry("new", 0)}, ends={0: 17})
    found = look(made).rows[0]
    assert (found.state, found.backlog_segments) == ("not decoded", 17)


def test_loss_that_the_decoder_could_not_name_goes_to_the_partitions_stream() -> None:
    made = fleet(NOW, 2)
    made.reports.append(lost("", 1, made.ends[1], NOW - 1, 9))
    found = top(taken(made.reports, {1: "gate-1"}), sources(made), NOW)
    assert row(found, "gate-1").lost == 9


def test_loss_is_seen_before_anybody_reports_it() -> None:
    made = fleet(NOW, 1)
    last = made.ends[0]
    known = replace(sources(made), bounds={0: Bounds(last + 5, last + 100)})
    found = top(taken(made.reports), known, NOW).rows[0]
    assert (found.attention, found.lost, found.backlog_segments) == (Attention.LOST, 5, 95)


def test_windows_forget_and_memory_stays_bounded() -> None:
    stream = Fleet()
    for minute in range(600):
        stream.take(report("s", 0, minute, NOW + 60 * minute, quality=1.0 if minute < 540 else 3.0), {})
    lately = stream.streams["s"]
    assert len(lately.minutes) == 60
    assert lately.last(3_600, NOW + 60 * 599).mean_quality == 3.0
    stream.forget_before(60, NOW + 60 * 700, {"s"})
    assert "s" in stream.streams
    stream.forget_before(60, NOW + 60 * 700, set())
    assert not stream.streams


def test_reports_of_one_minute_may_come_in_any_order() -> None:
    reports = [report("s", 0, number, NOW + number, quality=float(number)) for number in range(60)]
    shuffled = reports[:]
    random.Random(3).shuffle(shuffled)
    assert (
        taken(reports).streams["s"].last(3_600, NOW + 60).mean_quality
        == taken(shuffled).streams["s"].last(3_600, NOW + 60).mean_quality
    )


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_the_table_fits_the_terminal(width: int, count: int) -> None:
    lines = shown(look(fleet(NOW, count)), width, most_rows=20)
    assert all(len(line.rstrip()) <= width for line in lines)
    text = "\n".join(lines)
    if count == 0:
        assert "No stream is registered" in text
        return
    heading = next(line for line in lines if line.startswith("stream  "))
    for always in ("state", "quality", "lag"):
        assert always in heading
    assert "headroom" in heading
    if width >= 120:
        assert "configuration" in heading
    assert ("more that need less attention" in text) == (count == 40)
    assert "…" not in heading


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (200, 60)])
def test_a_screen_of_any_size_holds_all_lines(width: int, height: int) -> None:
    found = look(fleet(NOW, 60))
    caveats = ["KAFKA DOES NOT ANSWER for 12 s: what follows is old"]
    rows = fitting_rows(found, width, height, caveats)
    lines = rendered(top_table(found, width, most_rows=rows, caveats=caveats), width).splitlines()
    assert len(lines) <= height
    assert len(lines) >= height - 3


def test_json_holds_every_stream_and_no_infinity() -> None:
    made = fleet(NOW, 12)
    found = top(taken(made.reports), replace(sources(made), retention=Retention(None, None)), NOW)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert len(told["streams"]) == 12
    assert told["streams"][0]["headroom_seconds"] is None
    assert told["pool"]["cores"] == 4


def test_a_stale_plan_is_said_in_the_header() -> None:
    made = fleet(NOW, 1)
    assert made.pool is not None
    made.pool.lease_seconds = 10
    found = look(made)
    assert found.head.plan_stale
    assert "STALE" in head_line(found.head)


def test_a_camera_that_is_away_says_since_when() -> None:
    made = fleet(NOW, 1)
    assert look(replace(made, now=NOW + 599)).rows[0].state == "silent 10 min"
