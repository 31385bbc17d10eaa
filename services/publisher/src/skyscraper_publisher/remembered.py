"""The entries that a following publisher acted on last, on its own disk: what it captures when it starts while the
broker is away, for cameras do not wait. No credentials are in them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path


def remembered_file(folder: Path, instance: str) -> Path:
    """Beside the streams' folders. The leading dot keeps it apart from any stream id."""
    return folder / f".followed-{instance}.json"


def remember(file: Path, entries: Mapping[bytes, bytes]) -> None:
    """Replace what is remembered. A disk that refuses costs only the memory."""
    told = {key.decode(): base64.b64encode(value).decode() for key, value in entries.items()}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(told), encoding="utf-8")
        fresh.replace(file)


def recall(file: Path) -> dict[bytes, bytes]:
    """Empty where nothing, or nothing that can be read, is remembered."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {key.encode(): base64.b64decode(value, validate=True) for key, value in told.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
