"""KEDA's external scaler: how many core-seconds wait for the burst pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from skyscraper.keda import externalscaler_pb2 as keda
from skyscraper.keda import externalscaler_pb2_grpc

from skyscraper_burst import metrics
from skyscraper_burst.config import ScalingConfig
from skyscraper_burst.demand import Demand

METRIC = "skyscraper_burst_waiting_core_seconds"
# A change from none to some wakes KEDA at once; it asks for the amount by itself.
_LOOK_SECONDS = 0.25
# Metadata of the ScaledObject that overrides the gateway's own setting.
_PER_MACHINE = "coreSecondsPerMachine"


class Scaler(externalscaler_pb2_grpc.ExternalScalerServicer):
    """For grpc.aio."""

    def __init__(self, config: ScalingConfig, demand: Demand) -> None:
        self._config = config
        self._demand = demand

    async def IsActive(self, request: keda.ScaledObjectRef, context: Any) -> keda.IsActiveResponse:  # noqa: N802
        return keda.IsActiveResponse(result=self._demand.waiting_core_seconds > 0)

    async def StreamIsActive(  # noqa: N802 - the protocol's names
        self, request: keda.ScaledObjectRef, context: Any
    ) -> AsyncIterator[keda.IsActiveResponse]:
        told: bool | None = None
        while True:
            active = self._demand.waiting_core_seconds > 0
            if active is not told:
                told = active
                yield keda.IsActiveResponse(result=active)
            await asyncio.sleep(_LOOK_SECONDS)

    async def GetMetricSpec(  # noqa: N802
        self, request: keda.ScaledObjectRef, context: Any
    ) -> keda.GetMetricSpecResponse:
        text = request.scalerMetadata.get(_PER_MACHINE)
        try:
            target = float(text) if text else self._config.core_seconds_per_machine
        except ValueError:
            target = -1.0
        if not 0 < target < float("inf"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{_PER_MACHINE} is {text!r:.40}: a number above 0")
        return keda.GetMetricSpecResponse(
            metricSpecs=[keda.MetricSpec(metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target)]
        )

    async def GetMetrics(  # noqa: N802
        self, request: keda.GetMetricsRequest, context: Any
    ) -> keda.GetMetricsResponse:
        waiting = self._demand.waiting_core_seconds
        metrics.WAITING_CORE_SECONDS.set(waiting)
        return keda.GetMetricsResponse(
            metricValues=[keda.MetricValue(metricName=METRIC, metricValue=round(waiting), metricValueFloat=waiting)]
        )
