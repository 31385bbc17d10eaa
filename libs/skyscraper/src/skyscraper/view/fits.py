"""What the views need of a profile: its configurations and what they reach. Cheaper than decoding the whole fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from skyscraper.v1 import profile_pb2


@dataclass(frozen=True)
class FitView:
    """K configurations, from the cheapest."""

    version: str
    configurations: tuple[Mapping[str, str], ...]
    mean_quality: tuple[float, ...]
    cores: tuple[float, ...]
    uncertainty: tuple[float, ...]
    categories: int
    varying: tuple[str, ...]
    """The knobs that tell the configurations apart, in the pipeline's order."""

    @property
    def dearest_quality(self) -> float:
        """Mean quality of the dearest configuration: what 100 % means."""
        return self.mean_quality[-1] if self.mean_quality else 0.0


def fit_view(profile: profile_pb2.Profile) -> FitView | None:
    """None where the profile holds no fit."""
    if not profile.HasField("fit") or not profile.fit.configurations:
        return None
    fit = profile.fit
    every = [dict(one.knobs) for one in fit.configurations]
    order = [knob.name for knob in profile.knobs] or sorted(every[0])
    return FitView(
        version=fit.version,
        configurations=tuple(every),
        mean_quality=tuple(one.mean_quality for one in fit.configurations),
        cores=tuple(one.core_seconds_per_second for one in fit.configurations),
        uncertainty=tuple(one.work_uncertainty for one in fit.configurations),
        categories=int(fit.categories.centres.shape[0]) if fit.categories.centres.shape else 0,
        varying=tuple(name for name in order if len({one.get(name) for one in every}) > 1) or tuple(order),
    )
