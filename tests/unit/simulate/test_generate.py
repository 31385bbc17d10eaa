"""Generated content is valid, reproducible, and has the shape its name promises."""

from __future__ import annotations

import numpy as np
import pytest
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.generate import KINDS, generate


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_trace_and_another_does_not(kind: str) -> None:
    first, again, other = (generate(kind, days=0.2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.quality, again.quality)
    assert not np.array_equal(first.quality, other.quality)


@pytest.mark.parametrize("kind", KINDS)
def test_dearer_configurations_are_better_on_the_mean_and_content_varies(kind: str) -> None:
    trace = generate(kind, days=2, seed=0)
    assert (np.diff(trace.quality.mean(axis=0)) > 0).all()
    best = trace.quality[:, -1]
    assert np.quantile(best, 0.99) > 3 * np.quantile(best, 0.1)
    assert 0.3 < np.corrcoef(trace.features[:, 0], best)[0, 1] < 0.99


def test_regimes_hold_for_as_long_as_the_paper_saw() -> None:
    trace = generate("regimes", days=1, seed=0, segment_seconds=1.0)
    load = trace.quality[:, -1]
    steps = np.flatnonzero(np.abs(np.diff(np.log(load + 1e-9))) > 0.35)
    assert 15 < np.median(np.diff(steps)[np.diff(steps) > 5]) < 80


def test_spikes_are_short_and_peaks_are_long() -> None:
    def busy_seconds(kind: str) -> float:
        trace = generate(kind, days=4, seed=0)
        busy = np.convolve(trace.quality[:, -1], np.ones(3) / 3, mode="same") > 0.55
        edges = np.flatnonzero(np.diff(busy.astype(int)))
        return float(np.mean(np.diff(edges)[::2] if busy[edges[0] + 1] else np.diff(edges)[1::2])) * 4

    assert busy_seconds("mosei-high") < 200 < busy_seconds("mosei-long")


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TraceError, match="choose from diurnal, regimes"):
        generate("weekly", days=1, seed=0)
