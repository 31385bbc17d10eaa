"""The protocol between the engine and whatever runs a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from skyscraper.errors import SkyscraperError

from skyscraper_inference.parameters import Parameters, ParameterSpec

Tensor = NDArray[Any]


class ModelFailed(SkyscraperError):
    """The model raised on this input."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and shape without the batch axis; -1 is any size."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Backend(Protocol):
    """A loaded model. `run` is called by several threads at once."""

    @property
    def platform(self) -> str:
        """What kind of model it is, as clients are told."""
        ...

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @property
    def parameters(self) -> Sequence[ParameterSpec]:
        """What a request may set. Requests that differ in any of them are never in one batch."""
        ...

    def check(self, parameters: Parameters) -> None:
        """Whether values, each in its range, go together. Raises BadParameter."""
        ...

    def warm_up(self, inputs: Mapping[str, Tensor]) -> None:
        """Run once, for what the first run costs. It is no load to learn from. Raises ModelFailed."""
        ...

    def run(self, inputs: Mapping[str, Tensor], parameters: Parameters) -> dict[str, Tensor]:
        """All outputs for a batch; every tensor has the batch as its first axis. Raises ModelFailed."""
        ...
