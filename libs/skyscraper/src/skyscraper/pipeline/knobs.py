"""Knobs: settings with finite domains. A configuration gives one value to every knob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skyscraper.errors import ConfigError

KnobValue = int | float | str
Configuration = Mapping[str, KnobValue]


@dataclass(frozen=True)
class Knob:
    """A setting with a finite domain, ordered from cheapest to dearest where it has an order."""

    name: str
    domain: tuple[KnobValue, ...]
    default: KnobValue
    description: str

    def __post_init__(self) -> None:
        if self.default not in self.domain:
            raise ValueError(f"knob {self.name}: the default {self.default!r} is not in its domain {self.domain}")

    def parse(self, text: str) -> KnobValue:
        """The domain's value that `text` spells; raises ConfigError with the whole domain otherwise."""
        for value in self.domain:
            if text == str(value) or (not isinstance(value, str) and _same_number(text, value)):
                return value
        raise ConfigError(f"knob {self.name}: {text!r} is not one of {', '.join(map(str, self.domain))}")


def configure(knobs: Sequence[Knob], chosen: Mapping[str, str]) -> Configuration:
    """One value for every knob: the chosen ones, else the defaults. Raises ConfigError for an unknown knob or value."""
    unknown = sorted(set(chosen) - {knob.name for knob in knobs})
    if unknown:
        raise ConfigError(f"unknown knob {unknown[0]!r}; this pipeline has {', '.join(knob.name for knob in knobs)}")
    return {knob.name: knob.parse(chosen[knob.name]) if knob.name in chosen else knob.default for knob in knobs}


def _same_number(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False
