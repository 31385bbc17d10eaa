"""The gateway's configuration refuses what cannot work, and prices say where they come from."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from skyscraper.control.budget import CalendarWindow, Period, RollingWindow
from skyscraper_burst.config import BudgetConfig, BurstConfig, PoolConfig, PriceConfig
from skyscraper_burst.prices import Prices, PriceUnreadable, read_price


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"budgets": {"bad name": {"usd": 1}}}, "tenant's name"),
        ({"budgets": {"a": {"usd": 1, "time_zone": "Mars"}}}, "time zone"),
        ({"pools": [{"price_query": "x"}]}, "prometheus_url"),
        ({"pools": [{"price_query": "x", "price_file": "y"}]}, "one source"),
        ({"pools": [{}, {}]}, "same name"),
        ({"ledger": {"takeover_seconds": 1.0, "heartbeat_seconds": 0.5}}, "late heartbeat"),
        ({"in_flight_bytes": 1000}, "could never be taken"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        BurstConfig.model_validate(settings)


def test_budgets_are_for_rolling_or_calendar_windows() -> None:
    rolling = BudgetConfig.model_validate({"usd": 1.5, "window": "rolling", "rolling_seconds": 60}).budget()
    assert (rolling.micro_usd, rolling.window) == (1_500_000, RollingWindow(60))
    month = BudgetConfig.model_validate({"usd": 2, "window": "month", "time_zone": "Asia/Tokyo"}).budget()
    assert month.window == CalendarWindow(Period.MONTH, "Asia/Tokyo")


@pytest.fixture
def prometheus() -> Iterator[tuple[str, dict[str, Any]]]:
    """Its URL, and what it answers as `data`."""
    data: dict[str, Any] = {"resultType": "vector", "result": [{"value": [0, "0.042"]}]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"status": "success", "data": data}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", data
    server.shutdown()
    server.server_close()


def test_a_price_is_read_from_prometheus(prometheus: tuple[str, dict[str, Any]]) -> None:
    url, data = prometheus
    pool = PoolConfig.model_validate({"price_query": "min(spot_price) / 4"})
    assert read_price(pool, url) == 0.042
    data["result"] = []
    with pytest.raises(PriceUnreadable):
        read_price(pool, url)


async def _refreshed(prices: Prices, pool: PoolConfig) -> int:
    await prices.refresh(pool)
    return prices.of(pool.name)


def test_a_price_file_holds_until_it_is_stale_and_nonsense_is_not_believed(tmp_path: Path) -> None:
    import asyncio

    path, now = tmp_path / "price", [0.0]
    path.write_text("0.36\nper core-hour\n")
    pool = PoolConfig.model_validate({"price_file": path, "usd_per_core_hour": 3.6})
    prices = Prices([pool], PriceConfig.model_validate({"stale_seconds": 60}), clock=lambda: now[0])
    assert prices.of("spot") == 1_000_000
    assert asyncio.run(_refreshed(prices, pool)) == 100_000
    path.write_text("-1")
    now[0] = 30.0
    assert asyncio.run(_refreshed(prices, pool)) == 100_000
    now[0] = 61.0
    assert asyncio.run(_refreshed(prices, pool)) == 1_000_000
