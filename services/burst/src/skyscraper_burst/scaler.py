"""KEDA's external scaler: how many core-seconds wait for a burst pool.

KEDA asks whichever gateway its connection is at, the one that leads or one that stands by: all tell the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from skyscraper.keda import externalscaler_pb2 as keda
from skyscraper.keda import externalscaler_pb2_grpc

from skyscraper_burst.config import PoolConfig
from skyscraper_burst.shares import Shares

METRIC = "skyscraper_burst_pool_waiting_core_seconds"
# A change from none to some wakes KEDA at once; it asks for the amount by itself.
_LOOK_SECONDS = 0.25
# Metadata of the ScaledObject that names the gateway's pool; may be left out where there is only one.
_POOL = "pool"


class Scaler(externalscaler_pb2_grpc.ExternalScalerServicer):
    """For grpc.aio."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    async def IsActive(self, request: keda.ScaledObjectRef, context: Any) -> keda.IsActiveResponse:  # noqa: N802
        pool = await self._pool(request, context)
        return keda.IsActiveResponse(result=self._shares.core_seconds(pool.name) > 0)

    async def StreamIsActive(  # noqa: N802 - the protocol's names
        self, request: keda.ScaledObjectRef, context: Any
    ) -> AsyncIterator[keda.IsActiveResponse]:
        pool = await self._pool(request, context)
        told: bool | None = None
        while True:
            active = self._shares.core_seconds(pool.name) > 0
            if active is not told:
                told = active
                yield keda.IsActiveResponse(result=active)
            await asyncio.sleep(_LOOK_SECONDS)

    async def GetMetricSpec(  # noqa: N802
        self, request: keda.ScaledObjectRef, context: Any
    ) -> keda.GetMetricSpecResponse:
        target = (await self._pool(request, context)).core_seconds_per_machine
        return keda.GetMetricSpecResponse(
            metricSpecs=[keda.MetricSpec(metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target)]
        )

    async def GetMetrics(  # noqa: N802
        self, request: keda.GetMetricsRequest, context: Any
    ) -> keda.GetMetricsResponse:
        pool = await self._pool(request.scaledObjectRef, context)
        waiting = self._shares.core_seconds(pool.name)
        return keda.GetMetricsResponse(
            metricValues=[keda.MetricValue(metricName=METRIC, metricValue=round(waiting), metricValueFloat=waiting)]
        )

    async def _pool(self, request: keda.ScaledObjectRef, context: Any) -> PoolConfig:
        name = request.scalerMetadata.get(_POOL)
        found = self._shares.pool(name)
        if found is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"metadata.{_POOL} of ScaledObject {request.namespace}/{request.name} is {name!r:.40}: name one of the "
                f"gateway's pools",
            )
            raise AssertionError("abort raises")
        return found
