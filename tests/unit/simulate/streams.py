"""Small traces with hard and easy times of day, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from skyscraper.simulate.trace import Trace, make_trace

SEGMENT_SECONDS = 20.0


def arrays(*, days: float = 4, seed: int = 0, configurations: int = 5) -> dict[str, Any]:
    """A street with two rush hours; dear configurations pay only when it is full."""
    rng = np.random.default_rng(seed)
    count = int(days * 86_400 / SEGMENT_SECONDS)
    hour = np.arange(count) * SEGMENT_SECONDS / 3600 % 24
    base = 0.15 + 0.5 * np.exp(-(((hour - 8.5) / 1.5) ** 2)) + 0.7 * np.exp(-(((hour - 17.5) / 2) ** 2))
    load = base * np.repeat(rng.gamma(2, 0.5, count), 2)[:count]
    hard = np.clip(load / 1.5, 0, 1)[:, None]
    accuracy = 1 - (1 - np.linspace(0.35, 1, configurations)) * hard**0.8
    work = np.geomspace(0.1, 5, configurations) * SEGMENT_SECONDS
    return {
        "quality": accuracy * load[:, None] * (1 + rng.normal(0, 0.05, accuracy.shape).clip(-0.5, 0.5)),
        "work_core_seconds": work,
        "segment_bytes": 1e6 * (1 + load),
        "segment_seconds": SEGMENT_SECONDS,
        "features": np.stack([load * (1 + rng.normal(0, 0.25, count)), rng.normal(0, 1, count)], axis=1),
        "burst_usd": work * 2e-5,
        "burst_seconds": work + 1,
    }


def street(**settings: Any) -> Trace:
    return make_trace("street", **arrays(**settings))
