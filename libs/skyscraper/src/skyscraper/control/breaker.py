"""A circuit breaker: a sick pool is left alone for a while, and tried with one request before it is trusted again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


# From where to where, and nothing else.
TRANSITIONS = {
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.PROBING),
    (State.PROBING, State.OPEN),
    (State.PROBING, State.CLOSED),
}


@dataclass(frozen=True)
class BreakerTerms:
    """failures of the last `remembered` outcomes open it, for `open_seconds`, doubled with every failed probe up to
    `most_open_seconds`."""

    failures: int = 5
    remembered: int = 10
    open_seconds: float = 1.0
    most_open_seconds: float = 30.0


@dataclass
class Breaker:
    """Call `allows` before and `ended` after each request."""

    terms: BreakerTerms
    state: State = State.CLOSED
    _outcomes: deque[bool] = field(default_factory=deque)
    _until_seconds: float = 0.0
    _pause_seconds: float = 0.0
    _probe_until_seconds: float = 0.0

    def would_allow(self, now_seconds: float) -> bool:
        match self.state:
            case State.CLOSED:
                return True
            case State.OPEN:
                return now_seconds >= self._until_seconds
            case State.PROBING:
                # A probe of which nothing was heard again must not close the door for ever.
                return now_seconds >= self._probe_until_seconds

    def allows(self, now_seconds: float) -> bool:
        """Whether to send; the first after a pause is the probe."""
        if not self.would_allow(now_seconds):
            return False
        if self.state is not State.CLOSED:
            self.state = State.PROBING
            self._probe_until_seconds = now_seconds + self.terms.most_open_seconds
        return True

    def ended(self, good: bool, now_seconds: float) -> None:
        """The outcome of one request. Those sent before it opened tell nothing new."""
        if self.state is State.OPEN:
            return
        if self.state is State.PROBING:
            if good:
                self.state, self._pause_seconds = State.CLOSED, 0.0
                self._outcomes.clear()
            else:
                self._open(now_seconds)
            return
        self._outcomes.append(good)
        while len(self._outcomes) > self.terms.remembered:
            self._outcomes.popleft()
        if sum(not one for one in self._outcomes) >= self.terms.failures:
            self._open(now_seconds)

    def _open(self, now_seconds: float) -> None:
        longer = max(self.terms.open_seconds, 2 * self._pause_seconds)
        self._pause_seconds = min(longer, self.terms.most_open_seconds)
        self.state, self._until_seconds = State.OPEN, now_seconds + self._pause_seconds
        self._outcomes.clear()
