"""A tuner that is killed again and again: plans never go back, and it is at work again within seconds."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

# The full fifty take several minutes: `SKYSCRAPER_TEST_TUNER_KILLS=50` runs them. (What begins with SKYSCRAPER_TUNER_
# is a setting of the service.)
KILLS = int(os.environ.get("SKYSCRAPER_TEST_TUNER_KILLS", "5"))
RECOVERY_SECONDS = 15.0

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120 + 30 * KILLS)]


def test_plans_never_go_back_and_a_killed_tuner_is_back_in_time(town: Any, eventually: Any) -> None:
    rng = random.Random(7)
    town.register("gate-1", "gate-2")
    tuner = town.tuner()
    eventually(lambda: "_pool" in town.plans())
    taken = []
    for _ in range(KILLS):
        town.report("gate-1", "gate-2", count=10)
        time.sleep(rng.uniform(0, 2.0))
        tuner.kill()
        before = town.version()
        started = time.monotonic()
        tuner.start()
        eventually(lambda before=before: town.version() > before, seconds=4 * RECOVERY_SECONDS)
        eventually(lambda: tuner.page("readyz"), seconds=4 * RECOVERY_SECONDS)
        taken.append(time.monotonic() - started)
    print(f"recovered from {KILLS} kills in {[round(one, 1) for one in taken]} s")
    assert max(taken) < RECOVERY_SECONDS, taken
    versions = [version for _, version in town.history() if version]
    assert versions == sorted(set(versions))
    total = 10 * KILLS
    eventually(lambda: town.digested() == {"gate-1": total, "gate-2": total})
