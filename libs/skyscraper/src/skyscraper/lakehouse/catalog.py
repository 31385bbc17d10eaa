"""Where the tables are: a SQLite catalog beside the files by default, any Iceberg catalog by configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError

from skyscraper.lakehouse.errors import LakehouseBusy, LakehouseError
from skyscraper.service.config import Settings


class CatalogConfig(Settings):
    """Which Iceberg catalog, as pyiceberg names its properties."""

    warehouse_path: Path | None = Field(
        Path("out/warehouse"),
        description="Folder of a local SQLite catalog and its files; none where properties say it all.",
    )
    properties: dict[str, SecretStr] = Field(
        default_factory=dict, description="pyiceberg's catalog properties (type, uri, credential, ...); never printed."
    )
    namespace: str = Field("rows", description="Iceberg namespace of the tables.")


def open_catalog(config: CatalogConfig) -> Catalog:
    """The catalog, with its namespace. Raises LakehouseError, and LakehouseBusy where the catalog does not answer."""
    properties = {name: value.get_secret_value() for name, value in config.properties.items()}
    if config.warehouse_path is not None:
        folder = config.warehouse_path.expanduser().resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakehouseError(f"the warehouse folder {folder} cannot be made: {error.strerror}") from error
        local = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"}
        properties = local | properties
    try:
        catalog = load_catalog("skyscraper", **properties)
        if (config.namespace,) not in catalog.list_namespaces():
            catalog.create_namespace(config.namespace)
    except NamespaceAlreadyExistsError:
        # Another loader made it in the same moment.
        return catalog
    except Exception as error:  # noqa: BLE001 - raised again below, without the cause, which quotes secrets
        # Every catalog raises its own library's errors (SQLAlchemy, HTTP, cloud SDKs).
        raise LakehouseBusy(f"the Iceberg catalog cannot be opened: {_without_secrets(error, config)}") from None
    return catalog


def _without_secrets(error: Exception, config: CatalogConfig) -> str:
    """Libraries quote the address they could not use, with the password in it."""
    text = f"{type(error).__name__}: {error}"
    for value in config.properties.values():
        text = text.replace(value.get_secret_value(), "***")
    return text
