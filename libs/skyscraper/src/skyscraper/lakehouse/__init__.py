"""Rows at rest: Apache Iceberg tables written exactly once, kept small-file free, and queried with SQL."""

from skyscraper.lakehouse.catalog import CatalogConfig, open_catalog
from skyscraper.lakehouse.errors import LakehouseError, OffsetsMoved
from skyscraper.lakehouse.table import RowTable

__all__ = ["CatalogConfig", "LakehouseError", "OffsetsMoved", "RowTable", "open_catalog"]
