"""Crowds that gather: spikes and peaks of the street camera."""

from __future__ import annotations

import numpy as np
import pytest
from skyscraper.errors import ConfigError
from skyscraper.media.street import Street, StreetSpec
from skyscraper.media.street.crowd import CrowdCurve
from skyscraper_pipelines.mosei.streams import publisher_toml, sources


def lengths_hours(kind: str, hours: float, step: float) -> list[float]:
    """Of the times at which the crowd is there."""
    curve = CrowdCurve(kind)
    high = np.array([curve.crowd(hour) == 1.0 for hour in np.arange(0, hours, step)])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(int), [0]])))
    return [float(end - start) * step for start, end in zip(edges[::2], edges[1::2], strict=True)]


def test_spikes_are_many_and_short_and_peaks_few_and_long() -> None:
    spikes, peaks = lengths_hours("spikes", 48, 1 / 720), lengths_hours("peaks", 24 * 14, 1 / 60)
    assert 2 * 250 < len(spikes) < 2 * 420
    assert 20 / 3600 < np.mean(spikes) < 80 / 3600
    assert 14 < len(peaks) < 14 * 5
    assert np.mean(peaks) > 0.75


def test_a_moment_is_the_same_whenever_it_is_asked_for() -> None:
    forwards = [CrowdCurve("spikes").crowd(hour / 100) for hour in range(2000)]
    assert [CrowdCurve("spikes").crowd(hour / 100) for hour in reversed(range(2000))] == forwards[::-1]


def test_cameras_of_different_seeds_fill_at_the_same_moments() -> None:
    counts = []
    for seed in (1, 2):
        street = Street(StreetSpec(seed=seed, density=30, crowd="peaks", time_scale=120, seconds=720, fps=2))
        counts.append([len(street.frame(number)[1].objects) for number in range(0, 1440, 24)])
    assert np.asarray(np.corrcoef(counts))[0, 1] > 0.5


def test_a_workload_is_a_configuration_of_the_publisher() -> None:
    import tomllib

    from skyscraper_publisher.config import StreamConfig

    streams = tomllib.loads(publisher_toml("high", streams=3, clip_seconds=60, time_scale=60))["streams"]
    found = [StreamConfig.model_validate(one) for one in streams]
    assert [one.pipeline for one in found] == ["mosei"] * 3
    specs = [StreetSpec.parse(one.source.get_secret_value()) for one in found]
    assert {spec.crowd for spec in specs} == {"spikes"}
    assert len({spec.seed for spec in specs}) == 3


def test_a_crowd_or_workload_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="crowd 'waves' is not known; there are: steady, spikes, peaks"):
        StreetSpec.parse("street:people?crowd=waves")
    with pytest.raises(ConfigError, match="workload 'low'"):
        sources("low", streams=1, clip_seconds=60, time_scale=1)
