"""Every policy over the same days: who wins, what is lost, what is spent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.cli.app import app
from skyscraper.control.errors import Infeasible
from skyscraper.simulate import policies
from skyscraper.simulate.conditions import Disturbance, Resources
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.replay import World, replay
from skyscraper.simulate.run import POLICIES, Outcome, Study
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


@pytest.mark.parametrize("policy", GUARDED)
def test_a_buffer_of_bytes_is_never_overrun(study: Study, policy: str) -> None:
    # About ten minutes of the busiest hours.
    small = Resources(cores=0.5, buffer_seconds=21_600, buffer_bytes=60e6)
    outcome = run(study, policy, small)
    assert outcome.overflow_segments == 0
    assert outcome.max_backlog_seconds is not None
    assert outcome.max_backlog_seconds < 1_200
    assert outcome.max_backlog_seconds > 0 or policy == "static"


@pytest.mark.parametrize("policy", ["skyscraper", "priced"])
def test_interrupted_machines_and_a_thin_uplink_cost_quality_and_lose_nothing(study: Study, policy: str) -> None:
    plain = Resources(0.5, 3_600, usd_per_day=2.0)
    thin = replace(plain, uplink_bytes_per_second=10_000)
    interrupted = replace(plain, interruptions_per_day=60, interruption_seconds=600)
    best, throttled, taken = (run(study, policy, each) for each in (plain, thin, interrupted))
    for outcome in (best, throttled, taken):
        assert outcome.overflow_segments == 0
        assert outcome.overspend_usd == 0
    assert best.burst_lost_segments == throttled.burst_lost_segments == 0
    assert taken.burst_lost_segments > 0
    assert throttled.burst_usd is not None
    assert best.burst_usd is not None
    assert throttled.burst_usd < best.burst_usd
    assert max(throttled.mean_quality, taken.mean_quality) <= best.mean_quality * 1.001


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    uncertainty=st.floats(0, 0.5),
    buffer_seconds=st.floats(20, 4_000),
    cores=st.floats(0.12, 6),
)
def test_the_guard_holds_against_a_policy_that_always_wants_the_dearest(
    seed: int, uncertainty: float, buffer_seconds: float, cores: float
) -> None:
    """Whatever is wanted and however work varies within its stated uncertainty, nothing waits beyond the limit."""
    rng = np.random.default_rng(seed)
    rounds, seconds = 600, 20.0
    work = np.array([0.1, 0.8, 5.0]) * seconds
    cores = max(cores, 0.1 * (1 + uncertainty) + 1e-6)
    ones = np.ones((rounds, 1, 3))
    world = World(
        quality=ones,
        work=work * ones * rng.uniform(1 - uncertainty, 1 + uncertainty, (rounds, 1, 1)),
        estimate=work[None, :],
        usd=np.zeros((1, 3)),
        configuration=np.arange(3),
        segment_seconds=seconds,
        cores=cores,
        limit_seconds=buffer_seconds,
        buffer_seconds=buffer_seconds,
        uncertainty=uncertainty,
        usd_per_day=0.0,
        first_round=0,
        outage_start_seconds=0.0,
        outage_stop_seconds=0.0,
        bytes_before=np.arange(rounds + 1.0),
        buffer_bytes=np.inf,
        uplink_seconds=np.zeros((rounds, 1)),
        burst_seconds=np.zeros((1, 3)),
        burst_up=np.ones(rounds, dtype=np.bool_),
    )
    greedy = policies.Ladder(np.array([[2, 1]]), work[None, :])
    sums, chosen = np.zeros(7), np.zeros((rounds, 1), dtype=np.int16)
    replay(
        policies.prepare_nothing,
        policies.decide_ladder,
        policies.observe_nothing,
        greedy,
        world,
        np.array([0.0, 0.0, 1.0, 0.0]),
        sums,
        chosen,
        0,
        rounds,
    )
    assert sums[3] == 0
    assert sums[4] <= buffer_seconds + 1e-6


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
    with pytest.raises(Infeasible, match=r"do(es)? not fit: .* the pool has 0\.05"):
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
