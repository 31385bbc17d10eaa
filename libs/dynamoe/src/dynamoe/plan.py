"""What can be changed while a model runs, as plain data.

A plan never holds weights: a layer with a new plan computes with the weights it had, and two layers with the same
weights and the same plan give the same bits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from dynamoe.errors import SettingError
from dynamoe.products import Products


class Rows(StrEnum):
    """How many rows of an expert's capacity are computed."""

    EXACT = "exact"
    """Those that are there."""
    STATIC = "static"
    """All of them, so that every shape is known before the batch: what a captured or exported program needs."""


class Overflow(StrEnum):
    """What happens to a row that does not fit."""

    DROP = "drop"
    """It adds zero (the paper)."""
    GROW = "grow"
    """The step runs with as many rows as it needs, and is counted: a policy then raises the capacity."""


class Precision(StrEnum):
    """What the experts' weights are when the layer is evaluated; training always uses the parameters."""

    PARAMETERS = "parameters"
    PACKED = "packed"
    """The parameters' own type, rearranged once for the matrix kernel: faster on small batches, a second copy."""
    BFLOAT16 = "bfloat16"
    """Rearranged, two bytes per weight."""
    INT8 = "int8"
    """One byte per weight, one scale per row; activations are quantised as they come."""


@dataclass(frozen=True)
class Plan:
    """How a layer runs."""

    alpha: float | tuple[float, ...] | None = None
    """Capacity factor: one for all experts, one per expert, or None for no limit (dropless)."""
    rows: Rows = Rows.EXACT
    overflow: Overflow = Overflow.DROP
    products: Products = Products()
    precision: Precision = Precision.PARAMETERS
    cached: bool = False
    """Experts run on the assignments of the previous epoch, off the gate's critical path."""
    replicas: tuple[int, ...] | None = None
    """With several processes (`dynamoe.parallel`): in how many of them each expert is computed: 1 or all."""
    reserved_rows: int = 0
    """Batch rows for which workspaces are allocated when the plan is built; 0 allocates them in the first step."""

    def __post_init__(self) -> None:
        factors = [] if self.alpha is None else [self.alpha] if isinstance(self.alpha, int | float) else self.alpha
        if any(factor < 0 for factor in factors) or (isinstance(self.alpha, tuple) and not self.alpha):
            raise SettingError(f"alpha is {self.alpha}: capacity factors are zero or more, one for every expert")
        if self.rows is Rows.STATIC and self.alpha is None:
            raise SettingError("rows=static needs a capacity: give alpha, or use rows=exact")
        if self.reserved_rows < 0:
            raise SettingError(f"reserved_rows is {self.reserved_rows}: zero or more rows can be reserved")

    def alphas(self, n: int) -> tuple[float, ...] | None:
        """One factor for each of n experts."""
        if self.alpha is None or isinstance(self.alpha, tuple):
            return self.alpha
        return (float(self.alpha),) * n

    def with_(self, **changes: Any) -> Plan:
        """The same plan with other values."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return {key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        alpha, replicas = values.get("alpha"), values.get("replicas")
        return cls(
            alpha=tuple(alpha) if isinstance(alpha, list | tuple) else alpha,
            rows=Rows(values["rows"]),
            overflow=Overflow(values["overflow"]),
            products=Products(**values["products"]),
            precision=Precision(values["precision"]),
            cached=values["cached"],
            replicas=None if replicas is None else tuple(replicas),
            reserved_rows=values["reserved_rows"],
        )
