"""Request parameters: what a model declares, and what a request gives. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skyscraper.errors import SkyscraperError

Value = int | float | bool | str
Parameters = Mapping[str, int | float]

# What Triton's client sends of its own accord or by its own arguments. Batching here has no priorities, deadlines come
# with the call, and no model has sequences: they are taken and change nothing.
OF_CLIENTS = frozenset({"priority", "timeout", "sequence_id", "sequence_start", "sequence_end"})
# Triton's own extensions of the protocol.
_OF_TRITON = "triton_"


class BadParameter(SkyscraperError):
    """A request parameter that the model does not have, or a value it cannot take."""


@dataclass(frozen=True)
class ParameterSpec:
    """A number, from `low` to `high`, both included; a request may leave it out."""

    name: str
    kind: type[int] | type[float]
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} ({'whole number' if self.kind is int else 'number'} from {self.low:g} to {self.high:g})"


def read_parameters(model: str, specs: Sequence[ParameterSpec], given: Mapping[str, Value]) -> Parameters:
    """The given parameters in their declared types, less those that clients send of their own. Raises BadParameter."""
    declared = {spec.name: spec for spec in specs}
    read: dict[str, int | float] = {}
    for name, value in given.items():
        if name in declared:
            read[name] = _read(model, declared[name], value)
        elif name not in OF_CLIENTS and not name.startswith(_OF_TRITON):
            takes = ", ".join(map(str, specs)) or "none"
            raise BadParameter(f"model {model} has no parameter {name!r:.80}; it takes {takes}")
    return read


def _read(model: str, spec: ParameterSpec, value: Value) -> int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # A comparison with NaN is false.
    if number and (spec.kind is float or isinstance(value, int)) and spec.low <= float(value) <= spec.high:
        return spec.kind(value)
    raise BadParameter(f"model {model}: {value!r:.80} is no value of {spec}")
