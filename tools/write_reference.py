"""Write docs/reference/configuration.md and metrics.md from the services' own code; `--check` only compares."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generated import write_or_check
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
CONFIGS = {
    "publisher": "PublisherConfig",
    "decoder": "DecoderConfig",
    "inference": "InferenceServiceConfig",
    "loader": "LoaderConfig",
    "tuner": "TunerConfig",
    "burst": "BurstConfig",
}
# Defaults that depend on the machine are described, not printed.
MACHINE = {"repository", "folder", "instances"}


def configuration() -> str:
    lines = [
        "# Configuration",
        "",
        "Written by `tools/write_reference.py` from the services' own types. Every service reads a TOML file",
        "(`--config`); the environment overrides it: `<PREFIX><FIELD>`, or `<PREFIX><GROUP>__<FIELD>`. Unknown keys",
        "are refused; `--check-config` validates and prints what would be used, without secrets.",
    ]
    for service, name in CONFIGS.items():
        cls = getattr(importlib.import_module(f"skyscraper_{service}.config"), name)
        lines += ["", f"## {service}", "", f"Environment prefix `{cls.env_prefix}`.", ""]
        lines += ["| setting | default | meaning |", "|---|---|---|", *rows(cls, "")]
    return "\n".join(lines) + "\n"


def rows(cls: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from rows(kind, f"{prefix}{name}.")
            continue
        yield f"| `{prefix}{name}` | {shown(name, field)} | {field.description} |"
        for inner in nested(kind):
            yield from rows(inner, f"{prefix}{name}[].")


def nested(kind: Any) -> list[type[BaseModel]]:
    """The settings inside a list of settings."""
    return [one for one in getattr(kind, "__args__", ()) if isinstance(one, type) and issubclass(one, BaseModel)]


def shown(name: str, field: Any) -> str:
    if name in MACHINE:
        return "by machine"
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or default is None:
        return "none"
    if isinstance(default, tuple) and any(isinstance(one, BaseModel) for one in default):
        return "see below"
    return f"`{default}`"


def metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "Written by `tools/write_reference.py` from the services' own code. Every service serves `/metrics`,",
        "`/healthz` and `/readyz` on `metrics.port`. Counters end in `_total`; histograms have `_bucket`, `_sum`",
        "and `_count`.",
    ]
    for service in CONFIGS:
        module = importlib.import_module(f"skyscraper_{service}.metrics")
        found = [one for one in vars(module).values() if isinstance(one, MetricWrapperBase)]
        lines += ["", f"## {service}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in sorted(found, key=lambda one: next(iter(one.describe())).name):
            told = next(iter(metric.describe()))
            suffix = "_total" if told.type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or ""  # noqa: SLF001 - no public way
            lines.append(f"| `{told.name}{suffix}` | {told.type} | {labels} | {told.documentation} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    return write_or_check(
        {REFERENCE / "configuration.md": configuration(), REFERENCE / "metrics.md": metrics()},
        __doc__,
    )


if __name__ == "__main__":
    sys.exit(main())
