"""A run's load, capacity and recompilations as JSON lines, for `dynamoe report`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from dynamoe.errors import DynamoeError
from dynamoe.moe import MoE
from dynamoe.recompile import Event


class RunRecorder:
    """Writes one line per step and one per recompilation. `every` thins the steps out; events are always written."""

    def __init__(self, file: TextIO, *, every: int = 1) -> None:
        self._file = file
        self._every = max(1, every)
        self._step = 0

    def step(self, layer: MoE, event: Event | None = None) -> None:
        """Call it after `layer.step()` with what that returned."""
        seen = layer.observed
        if seen is not None and self._step % self._every == 0:
            counts = seen.counts.tolist() if isinstance(seen.counts, Tensor) else list(seen.counts)
            alphas = layer.plan.alphas(len(counts))
            self._write(
                {
                    "kind": "step",
                    "step": self._step,
                    "rows": seen.rows,
                    "k": seen.k,
                    "counts": counts,
                    "dropped": seen.dropped,
                    "alpha": None if alphas is None else list(alphas),
                }
            )
        if event is not None:
            self._write({"kind": "event", **event.to_dict(), "step": self._step})
        self._step += 1

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Run:
    """What a file of lines holds."""

    steps: list[dict[str, Any]]
    events: list[dict[str, Any]]


def read_run(path: Path) -> Run:
    """Raises DynamoeError where the file cannot be read or holds no step; a torn last line is left out."""
    try:
        lines = list(_lines(path))
    except OSError as error:
        raise DynamoeError(f"{path} cannot be read: {error.strerror}") from error
    run = Run(
        [line for line in lines if line.get("kind") == "step"], [line for line in lines if line.get("kind") == "event"]
    )
    if not run.steps:
        raise DynamoeError(f"{path} has no steps: write it with dynamoe.record.RunRecorder")
    return run


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(text, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            if number < len(text):
                raise DynamoeError(f"{path}, line {number}, is not JSON: {error}") from error
