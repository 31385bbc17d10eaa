"""A real SQLite catalog with real Parquet files in a temporary folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from skyscraper.lakehouse import CatalogConfig, open_catalog
from skyscraper.pipeline.rows import Column, ColumnType, RowSchema

SCHEMA = RowSchema((Column("at", ColumnType.TIMESTAMP, "When."), Column("people", ColumnType.INT64, "How many.")), "at")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def make_row(number: int, at: datetime = NOON, **more: Any) -> dict[str, Any]:
    return {"_stream": "gate-1", "_segment": "gate-1/1/7", "_row": number, "at": at, "people": number % 5, **more}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(CatalogConfig(warehouse_path=tmp_path / "warehouse"))
