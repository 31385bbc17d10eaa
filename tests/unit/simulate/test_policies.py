"""Every policy over the same days: who wins, what is lost, what is spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from skyscraper.cli.app import app
from skyscraper.control.errors import Infeasible
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.run import POLICIES, Disturbance, Outcome, Resources, Study
from skyscraper.simulate.trace import save_trace
from typer.testing import CliRunner

from .streams import street

GUARDED = [name for name in POLICIES if name not in ("chameleon", "optimum")]
SIX_HOURS = Resources(cores=1.0, buffer_seconds=21_600)


@pytest.fixture(scope="module")
def study() -> Study:
    return Study([street()], train_fraction=0.625)


def run(study: Study, policy: str, resources: Resources, disturbance: Disturbance | None = None) -> Outcome:
    return study.run(policy, resources, disturbance or Disturbance())


def test_prices_beat_the_papers_controller_and_that_beats_static(study: Study) -> None:
    share = {policy: run(study, policy, SIX_HOURS).share_of_optimum for policy in POLICIES}
    assert share["static"] < share["skyscraper"] < share["priced"] <= share["optimum"] == 1
    assert share["priced"] > 0.93


@pytest.mark.parametrize("buffer_seconds", [200, 3_600, 21_600])
@pytest.mark.parametrize("policy", GUARDED)
def test_no_guarded_policy_loses_a_segment(study: Study, policy: str, buffer_seconds: float) -> None:
    outcome = run(study, policy, Resources(cores=0.5, buffer_seconds=buffer_seconds))
    assert outcome.overflow_segments == 0
    assert outcome.max_backlog_seconds is not None
    assert outcome.max_backlog_seconds <= buffer_seconds


@pytest.mark.parametrize("policy", GUARDED)
@pytest.mark.parametrize("work_factor", [0.7, 1.3])
def test_wrong_estimates_lose_nothing(study: Study, policy: str, work_factor: float) -> None:
    resources = Resources(cores=1.0, buffer_seconds=3_600, uncertainty=0.35)
    assert run(study, policy, resources, Disturbance(work_factor=work_factor)).overflow_segments == 0


@pytest.mark.parametrize("policy", GUARDED)
def test_an_outage_within_the_reserve_loses_nothing(study: Study, policy: str) -> None:
    resources = Resources(cores=1.0, buffer_seconds=21_600, reserve_seconds=3_600)
    outage = Disturbance(outage_start_seconds=40_000, outage_seconds=3_600)
    assert run(study, policy, resources, outage).overflow_segments == 0


@pytest.mark.parametrize("policy", GUARDED)
def test_the_budget_is_kept_and_more_of_it_is_never_worse(study: Study, policy: str) -> None:
    outcomes = [run(study, policy, Resources(0.5, 3_600, usd_per_day=usd)) for usd in (0.0, 0.5, 2.0)]
    assert all(outcome.overspend_usd == 0 for outcome in outcomes)
    qualities = [outcome.mean_quality for outcome in outcomes]
    assert all(after > before * 0.995 for before, after in zip(qualities, qualities[1:], strict=False))


def test_more_cores_are_never_worse(study: Study) -> None:
    qualities = [run(study, "priced", Resources(cores, 3_600)).mean_quality for cores in (0.5, 1, 2, 4)]
    assert qualities == sorted(qualities)


def test_streams_that_share_a_budget_do_better_than_alone(study: Study) -> None:
    busy, calm = street(seed=1), street(seed=2)
    calm = type(calm)(**{**vars(calm), "quality": calm.quality * 0.2})
    together = Study([busy, calm], train_fraction=0.625).run("priced", Resources(1.0, 3_600)).mean_quality * 2
    alone = sum(
        Study([each], train_fraction=0.625).run("priced", Resources(0.5, 3_600)).mean_quality for each in (busy, calm)
    )
    assert together > alone


def test_the_same_seed_gives_the_same_result(study: Study) -> None:
    again = Study([street()], train_fraction=0.625)
    first, second = (run(each, "priced", SIX_HOURS) for each in (study, again))
    assert first.mean_quality == second.mean_quality


def test_streams_that_cannot_fit_are_refused_with_the_arithmetic(study: Study) -> None:
    with pytest.raises(Infeasible, match=r"do not fit: .* the pool has 0\.05"):
        run(study, "priced", Resources(cores=0.05, buffer_seconds=3_600))
    with pytest.raises(Infeasible, match="needs more than 0"):
        run(study, "static", Resources(cores=0, buffer_seconds=3_600))


def test_senseless_resources_are_refused(study: Study) -> None:
    with pytest.raises(TraceError, match="buffer_seconds is -1"):
        run(study, "priced", Resources(cores=1, buffer_seconds=-1))
    with pytest.raises(TraceError, match="usd_per_day is nan"):
        run(study, "priced", Resources(cores=1, buffer_seconds=1, usd_per_day=float("nan")))
    with pytest.raises(TraceError, match="reserve"):
        run(study, "priced", Resources(cores=1, buffer_seconds=1, reserve_seconds=2))
    with pytest.raises(TraceError, match="policy 'best'"):
        run(study, "best", SIX_HOURS)
    with pytest.raises(TraceError, match="train fraction"):
        Study([street(days=0.2)], train_fraction=1.5)


def test_the_command_prints_every_policy(tmp_path: Path) -> None:
    path = tmp_path / "street.npz"
    save_trace(path, street(days=1))
    done = CliRunner().invoke(app, ["simulate", str(path), "--cores", "1", "--json"])
    assert done.exit_code == 0, done.output
    outcomes = json.loads(done.output)["policies"]
    assert set(outcomes) == set(POLICIES)
    assert set(outcomes["priced"]) >= {
        *("mean_quality", "share_of_optimum", "core_seconds", "burst_usd", "overflow_segments"),
        *("max_backlog_seconds", "switch_seconds_p99", "plan_seconds"),
    }
    done = CliRunner().invoke(app, ["simulate", str(path), "--cores", "1", "--policy", "static"])
    assert done.exit_code == 0, done.output
    assert "static" in done.output
