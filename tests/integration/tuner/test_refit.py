"""Content that leaves what a profile was learned on: predictors are learned anew, tried, and take over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from skyscraper.bus.compacted import read_compacted
from skyscraper.bus.topics import PROFILES
from skyscraper.profile.codec import decode_fit
from skyscraper.v1 import profile_pb2

pytestmark = pytest.mark.broker

# Any moment, the first of a day of the content.
BEGIN_SECONDS = 300.0 * 4_000_000
SEEN = 1_200


def test_a_fit_that_proves_better_on_what_came_since_takes_over(town: Any, eventually: Callable[..., None]) -> None:
    town.register("gate")
    tuner = town.tuner(samples_per_slot=64, refit={"fewest_samples": 500})
    eventually(lambda: "gate" in town.plans())
    # Half of what the same content was worth when the profile was learned: another camera, or a dirty lens.
    town.report("gate", count=SEEN, start_seconds=BEGIN_SECONDS, factor=0.5)
    eventually(lambda: town.plans()["gate"].stream.drifted)
    eventually(lambda: tuner.metric('skyscraper_tuner_refits_total{outcome="on_trial",pipeline="counting"}') == 1)
    on_trial = town.plans()["gate"].stream
    assert on_trial.profile_version == town.fit.version, "it decides nothing while it is on trial"

    town.report("gate", count=SEEN, start_seconds=BEGIN_SECONDS + SEEN, factor=0.5)
    eventually(lambda: tuner.metric('skyscraper_tuner_refits_total{outcome="promoted",pipeline="counting"}') == 1)
    eventually(lambda: town.plans()["gate"].stream.profile_version != town.fit.version)
    (table,) = read_compacted(town.client, PROFILES, deadline_seconds=30).values()
    current = decode_fit(profile_pb2.Profile.FromString(table[b"counting"]).fit)
    assert current.version == town.plans()["gate"].stream.profile_version
    assert current.configurations == town.fit.configurations
