"""Made-up pasts of streams, for tests of the joint plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from skyscraper.control.joint import JointPlan, StreamPast, joint_plan

SEGMENT_SECONDS = 20.0


def past(name: str = "a", *, days: int = 2, configurations: int = 3, unit: float = 1.0, **settings: Any) -> StreamPast:
    """A rush from noon to three; dear configurations pay then. `unit`: of the pipeline's quality."""
    rng = np.random.default_rng(settings.pop("seed", 0))
    seconds = np.arange(0, days * 86_400, SEGMENT_SECONDS)
    hour = seconds / 3600 % 24
    load = 0.1 + 0.9 * ((hour >= 12) & (hour < 15)) * (1 + 0.05 * rng.normal(size=len(seconds)))
    quality = unit * load[:, None] * (1 - np.linspace(0.5, 0, configurations) * np.minimum(load, 1)[:, None])
    defaults: dict[str, Any] = {
        "segment_seconds": SEGMENT_SECONDS,
        "work_core_seconds": np.geomspace(2.0, 32.0, configurations),
        "value_scale": 1 / float(quality[:, -1].mean()),
    }
    return StreamPast(name, quality, quality, seconds, **(defaults | settings))


def planned(pasts: list[StreamPast], **settings: Any) -> JointPlan:
    defaults: dict[str, Any] = {
        "cores": 1.0,
        "segment_seconds": SEGMENT_SECONDS,
        "slot_seconds": 1_200.0,
        "day_seconds": 86_400.0,
        "limit_seconds": 7_200.0,
        "usd_per_day": 0.0,
    }
    return joint_plan(pasts, **(defaults | settings))
