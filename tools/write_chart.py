"""Write the chart's values.schema.json, and the table in its README, from chart_values.py and the services' own
configurations; `--check` only compares."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from chart_values import ChartValues
from generated import write_or_check
from pydantic import BaseModel
from write_reference import CONFIGS

CHART = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "skyscraper"
MARK = "<!-- values: written by tools/write_chart.py -->"

# What a pod, its mounts and the other values decide; setting it a second time could only be wrong.
COMMON = {"instance", "log_format", "shutdown_seconds", "metrics", "kafka"}
DECIDED = {
    "publisher": COMMON | {"streams", "follow", "credentials", "credentials_file", "spill.folder"},
    "decoder": COMMON | {"inference.target", "inference.tls", "burst.targets", "burst.tls"},
    "inference": COMMON | {"host", "port", "port_file", "tls", "repository", "instances"},
    "tuner": COMMON | {"pool_cores", "state_folder"},
    "loader": COMMON | {"catalog.warehouse_path"},
    "burst": COMMON | {"host", "port", "port_file", "pools", "tls", "machine_tls"},
}
_JSON = {"type": "object"}


def service_schema(service: str) -> dict[str, Any]:
    """The JSON schema of a service's settings in the values: none needed, and without what the chart decides."""
    if service == "streams":
        module = importlib.import_module("skyscraper_publisher.config")
        schema = _inlined(module.StreamConfig.model_json_schema())
        return {"type": "array", "items": schema}
    if service not in CONFIGS:
        return dict(_JSON)
    module = importlib.import_module(f"skyscraper_{service}.config")
    schema = _inlined(getattr(module, CONFIGS[service]).model_json_schema())
    for path in DECIDED[service]:
        group, _, name = path.rpartition(".")
        inner = schema["properties"][group] if group else schema
        inner["properties"].pop(name, None)
    return schema | {"required": []}


def values_schema() -> dict[str, Any]:
    schema = _inlined(ChartValues.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "skyscraper", **schema}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references, titles, and defaults (those are in values.yaml or the service itself)."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "x-service" in node and node["x-service"]:
            return service_schema(node["x-service"]) | {"description": node["description"]}
        if "$ref" in node:
            target = resolve(definitions[node["$ref"].rpartition("/")[2]])
            return target | ({"description": node["description"]} if "description" in node else {})
        kept = {}
        for name, value in node.items():
            if name in ("$defs", "title", "default", "writeOnly", "format", "x-service") and not _is_properties(node):
                continue
            kept[name] = resolve(value)
        return kept

    resolved: dict[str, Any] = resolve(schema)
    return resolved


def _is_properties(node: dict[str, Any]) -> bool:
    """Whether the keys are names of settings, not words of JSON schema."""
    return all(isinstance(value, dict) for value in node.values()) and not {"type", "anyOf", "$ref"} & node.keys()


def table(cls: type[BaseModel], defaults: Any, prefix: str = "") -> Iterator[str]:
    """A line for every value, with its default from values.yaml."""
    for name, field in cls.model_fields.items():
        shown = field.alias or name
        if shown == "global":
            continue
        kind: Any = field.annotation
        path = f"{prefix}{shown}"
        default = defaults.get(shown) if isinstance(defaults, dict) else None
        inner = [one for one in getattr(kind, "__args__", ()) if isinstance(one, type) and issubclass(one, BaseModel)]
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ != "ServiceSettings":
            yield from table(kind, default, f"{path}.")
        elif inner and getattr(kind, "__origin__", None) is list:
            yield f"| `{path}` | `[]` | {field.description} |"
            yield from table(inner[0], {}, f"{path}[].")
        else:
            yield f"| `{path}` | {_shown(default)} | {field.description} |"


def _shown(default: Any) -> str:
    return "" if default in (None, "") else f"`{json.dumps(default)}`"


def readme(before: str) -> str:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = ["| value | default | meaning |", "|---|---|---|", *table(ChartValues, defaults)]
    head, _, _ = before.partition(MARK)
    return head + MARK + "\n\n" + "\n".join(lines) + "\n"


def main() -> int:
    page = CHART / "README.md"
    return write_or_check(
        {
            CHART / "values.schema.json": json.dumps(values_schema(), indent=1) + "\n",
            page: readme(page.read_text(encoding="utf-8")),
        },
        __doc__,
    )


if __name__ == "__main__":
    sys.exit(main())
