"""The gateway as its callers see it: dollars held, spent and refused; a standby that takes over; the scaling signal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from burst_processes import DeclaredMachine, GatewayProcess, money, request
from skyscraper.keda import externalscaler_pb2 as keda
from skyscraper.keda import externalscaler_pb2_grpc
from skyscraper.rpc.burst import CHARGED_NANO_USD, REFUSAL, TENANT
from skyscraper.v1 import burst_pb2
from tritonclient.grpc import service_pb2_grpc

pytestmark = pytest.mark.broker

# 0.01 USD per core-second, so that a test's dollars are easy to reckon.
PRICE = {"usd_per_core_hour": 36.0}
NANO_PER_CORE_SECOND = 10_000_000


def pools(machines: list[DeclaredMachine]) -> list[dict[str, object]]:
    return [{"targets": [one.target for one in machines], **PRICE}]


def infer(channel: grpc.Channel, tenant: str, work: float, timeout: float = 5.0) -> int:
    """Nano-dollars charged."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    _, call = stub.ModelInfer.with_call(request(work), timeout=timeout, metadata=((TENANT, tenant),))
    return int(dict(call.trailing_metadata())[CHARGED_NANO_USD])


def refusal(error: Any) -> str:
    """Why, as the gateway says it."""
    return str(dict(error.trailing_metadata())[REFUSAL])


def spend(channel: grpc.Channel, tenant: str) -> int:
    """Nano-dollars charged; 0 once the budget has no room."""
    try:
        return infer(channel, tenant, 0.1, timeout=0.5)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return 0


def test_measured_work_is_charged_until_the_budget_is_spent(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    one = gateway(pools=pools(machines), budgets={tenant: {"usd": 0.02}})
    one.start()
    with one.channel() as channel:
        charged = infer(channel, tenant, 0.1, timeout=1.0)
        assert charged == 0.1 * NANO_PER_CORE_SECOND
        balance = money(channel).GetBudget(burst_pb2.GetBudgetRequest(tenant=tenant))
        assert (balance.spent_micro_usd, balance.budget.micro_usd) == (1_000, 20_000)
        with pytest.raises(grpc.RpcError) as refused:
            infer(channel, tenant, 0.1, timeout=2.5)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, "2.5 s could cost 0.025 USD"
        assert refusal(refused.value) == "budget"
        total = charged + sum(iter(lambda: spend(channel, tenant), 0))
        assert 15_000_000 <= total <= 20_000_000
        with pytest.raises(grpc.RpcError) as unknown:
            infer(channel, "nobody", 0.01)
        assert unknown.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        more = burst_pb2.SetBudgetRequest(
            tenant=tenant, budget=burst_pb2.Budget(micro_usd=100_000, rolling_seconds=3600)
        )
        after = money(channel).SetBudget(more)
        assert after.balance.spent_micro_usd == total // 1_000
        assert infer(channel, tenant, 0.1) == charged


def test_reservations_are_settled_released_or_charged_when_they_expire(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    one = gateway(pools=pools(machines), budgets={tenant: {"usd": 1.0}})
    one.start()
    with one.channel() as channel:
        api = money(channel)
        reserve = burst_pb2.ReserveRequest(tenant=tenant, ceiling_core_seconds=2.0, expires_seconds=5.0)
        first, second = api.Reserve(reserve), api.Reserve(reserve)
        assert first.held_micro_usd == 20_000
        settled = api.Settle(burst_pb2.SettleRequest(reservation_id=first.reservation_id, core_seconds=0.5))
        assert settled.charged_micro_usd == 5_000
        api.Release(burst_pb2.ReleaseRequest(reservation_id=second.reservation_id))
        reserve.expires_seconds = 0.2
        api.Reserve(reserve)
        time.sleep(0.6)
        assert api.GetBudget(burst_pb2.GetBudgetRequest(tenant=tenant)).spent_micro_usd == 25_000
        with pytest.raises(grpc.RpcError) as gone:
            api.Settle(burst_pb2.SettleRequest(reservation_id=first.reservation_id))
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_standby_takes_over_within_five_seconds_and_counts_what_was_open(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    settings = {"pools": pools(machines), "budgets": {tenant: {"usd": 10.0}}}
    leader, standby = gateway("gateway-a", **settings), gateway("gateway-b", **settings)
    leader.start()
    standby.start(wait=False)
    with leader.channel() as channel, ThreadPoolExecutor(8) as pool:
        charged = sum(pool.map(lambda _: infer(channel, tenant, 0.05), range(100)))
    with standby.channel() as channel:
        grpc.channel_ready_future(channel).result(20)
        with pytest.raises(grpc.RpcError) as refused:
            infer(channel, tenant, 0.05)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        # What was settled is durable after a moment.
        time.sleep(0.5)
        leader.kill()
        killed = time.monotonic()
        standby.wait_leading(20)
        took = time.monotonic() - killed
        assert took < 5.0
        spent = money(channel).GetBudget(burst_pb2.GetBudgetRequest(tenant=tenant)).spent_micro_usd
        # Open at the kill, in micro-dollars: eight requests that hold 50,000 each, two more ahead, and what a quarter
        # of a second spends. The slower the machine, the nearer it comes to that.
        assert charged / 1_000 <= spent <= charged / 1_000 + 600_000
        assert infer(channel, tenant, 0.05) == 0.05 * NANO_PER_CORE_SECOND
    assert standby.metric("skyscraper_burst_forfeited_usd_total") > 0


def test_a_gateway_that_stops_in_order_loses_no_dollar_and_hands_over_at_once(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    settings = {"pools": pools(machines), "budgets": {tenant: {"usd": 10.0}}}
    leader, standby = gateway("gateway-a", **settings), gateway("gateway-b", **settings)
    leader.start()
    standby.start(wait=False)
    with leader.channel() as channel:
        charged = sum(infer(channel, tenant, 0.02) for _ in range(10))
    with standby.channel() as channel:
        grpc.channel_ready_future(channel).result(20)
        leader.signal(signal.SIGTERM)
        assert leader.wait() == 0
        standby.wait_leading(3.0)
        spent = money(channel).GetBudget(burst_pb2.GetBudgetRequest(tenant=tenant)).spent_micro_usd
        assert spent == charged // 1_000


def test_work_asked_of_an_empty_pool_is_told_to_keda_and_fades(
    gateway: Callable[..., GatewayProcess], tenant: str
) -> None:
    one = gateway(
        pools=[{"targets": ["127.0.0.1:9"], "cold_start_seconds": 90.0, "core_seconds_per_machine": 4.0}],
        budgets={tenant: {"usd": 1.0}},
        scaling={"demand_memory_seconds": 0.5},
    )
    one.start()
    with one.channel() as channel:
        scaler = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        assert not scaler.IsActive(keda.ScaledObjectRef()).result
        quote = money(channel).Quote(burst_pb2.QuoteRequest(tenant=tenant, core_seconds=40.0))
        assert (quote.pool.ready_endpoints, quote.pool.cold_start_seconds) == (0, 90.0)
        spec = scaler.GetMetricSpec(keda.ScaledObjectRef()).metricSpecs[0]
        assert (spec.metricName, spec.targetSize) == ("skyscraper_burst_pool_waiting_core_seconds", 4)
        streamed = scaler.StreamIsActive(keda.ScaledObjectRef())
        assert True in (next(streamed).result, next(streamed).result)
        assert 1 < waiting(scaler) <= 40
        with pytest.raises(grpc.RpcError) as refused:
            infer(channel, tenant, 0.1)
        assert refusal(refused.value) == "no_machine"
        time.sleep(6.0)
        assert not scaler.IsActive(keda.ScaledObjectRef()).result


def test_keda_is_told_the_same_by_the_gateway_that_leads_and_by_one_that_stands_by(
    gateway: Callable[..., GatewayProcess], tenant: str
) -> None:
    dear, cheap = {"usd_per_core_hour": 0.2}, {"usd_per_core_hour": 0.1, "most_machines": 2}
    settings = {
        "pools": [
            {"name": name, "targets": ["127.0.0.1:9"], "core_seconds_per_machine": 4.0, **price}
            for name, price in (("dear", dear), ("cheap", cheap))
        ],
        "budgets": {tenant: {"usd": 1.0}},
    }
    leader, standby = gateway("gateway-a", **settings), gateway("gateway-b", **settings)
    leader.start()
    standby.start(wait=False)
    with leader.channel() as channel, standby.channel() as other:
        grpc.channel_ready_future(other).result(20)
        money(channel).Quote(burst_pb2.QuoteRequest(tenant=tenant, core_seconds=40.0))
        time.sleep(2.0)
        for one in (channel, other):
            scaler = externalscaler_pb2_grpc.ExternalScalerStub(one)
            assert waiting(scaler, "cheap") == 8.0
            assert 20 < waiting(scaler, "dear") < 32
            with pytest.raises(grpc.RpcError) as unknown:
                waiting(scaler)
            assert unknown.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert standby.page("readyz")
        assert not standby.leads


def waiting(scaler: externalscaler_pb2_grpc.ExternalScalerStub, pool: str | None = None) -> float:
    """Core-seconds, as KEDA asks for them."""
    asked = keda.ScaledObjectRef(scalerMetadata={} if pool is None else {"pool": pool})
    return scaler.GetMetrics(keda.GetMetricsRequest(scaledObjectRef=asked)).metricValues[0].metricValueFloat


def test_a_machine_that_dies_is_replaced_within_the_request(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    one = gateway(pools=pools(machines), budgets={tenant: {"usd": 10.0}})
    one.start()
    with one.channel() as channel, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(infer, channel, tenant, 0.3, 5.0) for _ in range(8)]
        time.sleep(0.15)
        machines[0].process.kill()
        assert len([future.result() for future in futures]) == 8
        assert one.metric("skyscraper_burst_retries_total") >= 1
        watch = money(channel).WatchPool(burst_pb2.WatchPoolRequest(tenant=tenant))
        assert next(watch).pool.ready_endpoints == 1
        watch.cancel()


def test_a_slow_machine_is_hedged_by_another(
    gateway: Callable[..., GatewayProcess], machines: list[DeclaredMachine], tenant: str
) -> None:
    one = gateway(pools=pools(machines), budgets={tenant: {"usd": 100.0}}, retry={"hedge_share": 1.0})
    one.start()
    with one.channel() as channel, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: infer(channel, tenant, 0.02), range(60)))
        machines[0].process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        list(pool.map(lambda _: infer(channel, tenant, 0.02, timeout=5.0), range(4)))
        assert time.monotonic() - begun < 3.0
        machines[0].process.send_signal(signal.SIGCONT)
    assert one.metric("skyscraper_burst_hedges_total") >= 1
