"""From the streams that run and the streams that are wanted to what has to be done now. Pure.

It is level-triggered: it looks at what is, not at what has changed, so a step that was missed or failed is taken the
next time. One stream never has two captures: a new one begins only when the old one's thread has ended, and on the same
outbox, so that the order of segments is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S")


class Phase(Enum):
    """capturing → stopping → draining → drained; from the last two back to capturing, or away."""

    CAPTURING = "capturing"
    """Its source is being read, or has ended by itself."""
    STOPPING = "stopping"
    """Told to end; its thread is still there."""
    DRAINING = "draining"
    """No thread; segments wait for the broker."""
    DRAINED = "drained"
    """No thread, and nothing that could still be sent."""


@dataclass(frozen=True)
class Running(Generic[S]):
    """A stream that this process holds."""

    settings: S | None
    """What its capture was begun with; None where there never was one, only a spill to be sent."""
    phase: Phase


class Act(Enum):
    OPEN = "open"
    """Take up a stream that is not held: its spill, its outbox, a capture."""
    STOP = "stop"
    """End its capture; what it has given stays in the outbox."""
    CAPTURE = "capture"
    """Begin a new capture on the outbox that is held."""
    FORGET = "forget"
    """Close the outbox."""


@dataclass(frozen=True)
class Action:
    act: Act
    stream_id: str


def reconcile(running: Mapping[str, Running[S]], wanted: Mapping[str, S]) -> tuple[Action, ...]:
    """At most one action per stream, in the order of their ids. `wanted` maps an id to the settings of its capture."""
    actions = []
    for stream_id in sorted({*running, *wanted}):
        act = _act(running.get(stream_id), wanted.get(stream_id))
        if act is not None:
            actions.append(Action(act, stream_id))
    return tuple(actions)


def _act(now: Running[S] | None, want: S | None) -> Act | None:
    if now is None:
        return None if want is None else Act.OPEN
    if now.phase is Phase.CAPTURING:
        return None if want == now.settings else Act.STOP
    if now.phase is Phase.STOPPING:
        return None
    if want is not None:
        return Act.CAPTURE
    return Act.FORGET if now.phase is Phase.DRAINED else None
