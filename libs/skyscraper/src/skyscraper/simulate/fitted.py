"""What a pool would do with streams whose profile is known: prices and predictions as the tuner and the decoders have
them, over traces of what then came."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.joint import StreamPast, joint_plan
from skyscraper.control.prices import PricePlan
from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.profile.fit import Fit
from skyscraper.profile.predict import inputs_at
from skyscraper.simulate.conditions import UNDISTURBED, Disturbance, Resources
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.run import Outcome, Study
from skyscraper.simulate.trace import Trace
from skyscraper.simulate.training import QualityModel, Settings

Floats = NDArray[np.float64]


class FittedStudy(Study):
    """Policies `priced` and `optimum`, which need no training part; the others raise TraceError.

    The traces begin at a midnight of the content, hold the fit's configurations and features in its order, and are
    replayed whole. The content's day may be shown in `day_seconds` instead of 24 hours.
    """

    def __init__(
        self, fit: Fit, traces: Sequence[Trace], *, slot_seconds: float, day_seconds: float = SECONDS_PER_DAY
    ) -> None:
        self._fit = fit
        self._content_day_seconds = day_seconds
        self._content_slot_seconds = slot_seconds
        self._begin(traces, 0, Settings())

    def run(
        self, policy: str, resources: Resources, disturbance: Disturbance = UNDISTURBED, *, bound: float | None = None
    ) -> Outcome:
        if policy not in ("priced", "optimum"):
            raise TraceError(f"policy {policy!r} needs a training part, which a profile does not carry")
        return super().run(policy, resources, disturbance, bound=bound)

    @cached_property
    def work_uncertainty(self) -> float:
        return float(self._fit.work.uncertainty.max())

    def _learn_work(self) -> Floats:
        return np.tile(self._fit.work.estimate(self._seconds), (len(self._traces), 1))

    def _slot_seconds(self, resources: Resources) -> float:
        del resources
        return self._content_slot_seconds

    @cached_property
    def _trained(self) -> list[QualityModel]:
        fit = self._fit
        days = np.asarray(np.arange(self._segments) * self._seconds / self._content_day_seconds, dtype=np.float64)
        predictors = ((fit.predictor, False), (fit.look_ahead_predictor, True))
        return [
            QualityModel(
                np.stack(
                    [
                        predictor.predict(
                            inputs_at(trace.features[: self._segments].astype(np.float64), days, ahead=ahead)
                        )
                        for predictor, ahead in predictors
                    ]
                ),
                fit.history.predicted,
                fit.residuals,
            )
            for trace in self._traces
        ]

    def _price_plan(self, resources: Resources, slot_segments: int) -> PricePlan:
        fit, day = self._fit, self._content_day_seconds
        return joint_plan(
            [
                StreamPast(
                    trace.name,
                    fit.history.predicted,
                    fit.history.truth,
                    fit.history.seconds / SECONDS_PER_DAY * day,
                    self._seconds,
                    self._learn_work()[0],
                    value_scale=1.0,
                )
                for trace in self._traces
            ],
            cores=resources.cores,
            segment_seconds=self._seconds,
            slot_seconds=slot_segments * self._seconds,
            day_seconds=day,
            limit_seconds=self._limit_seconds(resources),
            usd_per_day=resources.usd_per_day,
        ).price
