"""Serving a classifier from several threads, with a plan that follows the live load.

Each thread runs a batch on the plan that it finds. What the batch showed is then handed to the layers' policies, one
thread at a time; a new plan is built in the background, and the next batch finds it. No batch waits for a plan.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dynamoe.classifier import ClassifierShape, ImageClassifier
from dynamoe.errors import SettingError
from dynamoe.plan import Plan, Precision
from dynamoe.policies import HEADROOM, Policy, first_of, local_capacity, precision_by_rows
from dynamoe.products import onednn_multiplies
from dynamoe.recompile import Event

# Batches between two changes: half of the running means' memory, so that a change shows before the next one.
_STEPS = 50


class Follow(StrEnum):
    """What of the plan follows the load."""

    CAPACITY = "capacity"
    """The experts' shares of a request's capacity follow what they are asked for."""
    PRECISION = "precision"
    """int8 for small batches, bfloat16 for large ones. Results then depend on the load, in their third digit."""


class Cause(StrEnum):
    """What a recompilation was about; a label for a metric."""

    CAPACITY = "capacity"
    PRECISION = "precision"
    FAILED = "failed"


@dataclass(frozen=True)
class LayerLoad:
    """What one batch did in one layer."""

    counts: tuple[int, ...]
    """Rows that each expert was asked to take, dropped ones included."""
    dropped: int
    event: Event | None
    """A new plan that was put in place behind this batch, or could not be built."""


@dataclass(frozen=True)
class Served:
    """A batch's answer: float32 [B, labels], probabilities."""

    probabilities: NDArray[np.float32]
    layers: tuple[LayerLoad, ...]


class ClassifierServer:
    """A classifier that any number of threads may call."""

    def __init__(self, folder: Path, *, follow: Collection[Follow] = (Follow.CAPACITY,), int8_rows: int = 64) -> None:
        """`int8_rows`: with `Follow.PRECISION`, batches up to which int8 is chosen. Raises SettingError."""
        if int8_rows < 1:
            raise SettingError(f"int8_rows is {int8_rows}: at least 1")
        shape = ClassifierShape.from_folder(folder)
        self._model = ImageClassifier.load(
            folder, plan=first_plan(shape.experts), policy=serving_policy(shape.experts, follow, int8_rows=int8_rows)
        ).eval()
        self._deciding = threading.Lock()

    @property
    def shape(self) -> ClassifierShape:
        return self._model.shape

    @property
    def plans(self) -> tuple[Plan, ...]:
        """How each layer runs now."""
        return tuple(layer.plan for layer in self._model.moe_layers)

    def run(
        self,
        images: NDArray[np.uint8],
        *,
        k: int | None = None,
        active: int | None = None,
        capacity: float | None = None,
        learn: bool = True,
    ) -> Served:
        """uint8 [B, height, width, 3]. `k` experts per image of the first `active` ones, each of which takes on average
        `capacity` times its fair share of the batch; without a capacity nothing is dropped. Plans do not follow a batch
        that is not to be learned from. Raises ShapeError."""
        logits, seen = self._model.evaluate(torch.tensor(images), k=k, active=active, capacity=capacity)
        events: list[Event | None] = [None] * len(seen)
        if learn:
            # A decision takes microseconds; what it may start runs in a thread of its own.
            with self._deciding:
                events = [layer.step(one) for layer, one in zip(self._model.moe_layers, seen, strict=True)]
        layers = tuple(
            LayerLoad(tuple(map(int, one.counts)), int(one.dropped), event)
            for one, event in zip(seen, events, strict=True)
        )
        return Served(logits.softmax(dim=1).numpy(), layers)


def first_plan(experts: int) -> Plan:
    """Equal shares; weights rearranged for small batches where this machine can."""
    packed = Precision.PACKED if onednn_multiplies(torch.float32) else Precision.PARAMETERS
    return Plan(alpha=(HEADROOM,) * experts, precision=packed)


def serving_policy(experts: int, follow: Collection[Follow], *, int8_rows: int) -> Policy | None:
    """None follows nothing."""
    policies = []
    if Follow.PRECISION in follow:
        large = Precision.BFLOAT16 if onednn_multiplies(torch.bfloat16) else first_plan(experts).precision
        policies.append(precision_by_rows(large=large, rows=int8_rows, smooth=True, steps=_STEPS))
    if Follow.CAPACITY in follow:
        # The sum stays; a quarter more than is needed leaves an expert that was idle a share.
        policies.append(local_capacity(total=HEADROOM * experts, steps=_STEPS, smooth=True))
    return first_of(*policies) if policies else None


def cause(event: Event) -> Cause:
    if event.error:
        return Cause.FAILED
    return Cause.PRECISION if event.old.precision is not event.new.precision else Cause.CAPACITY
