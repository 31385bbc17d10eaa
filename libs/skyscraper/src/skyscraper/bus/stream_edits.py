"""What a person may do to a registered stream, as decisions on the register; `change_register` makes them happen.

Each is a function of the register alone and may be called again on a newer one, so of two people who edit one stream
at once nobody's edit is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from skyscraper.bus.register import Change, Register
from skyscraper.bus.streams import allocate
from skyscraper.errors import ConfigError
from skyscraper.v1.stream_pb2 import STREAM_STATE_ACTIVE, STREAM_STATE_PAUSED, STREAM_STATE_REMOVING, Stream

Edit = Callable[[Stream], None]
"""Changes the copy of an entry that it is given."""


def adding(stream: Stream, requested: int | None) -> Change:
    """Register `stream` on the requested or the lowest free partition."""

    def change(register: Register, partitions: int) -> Mapping[str, Stream | None]:
        entry = Stream()
        entry.CopyFrom(stream)
        entry.state = STREAM_STATE_ACTIVE
        before = register.get(stream.stream_id)
        if before is not None:
            entry.partition = before.stream.partition
            # The very entry that is wanted: our own, written by a call that never heard of its success.
            if before.stream == entry and requested in {None, entry.partition}:
                return {}
            raise ConfigError(
                f"stream {stream.stream_id} exists already (see `skyscraper stream list`): choose another id, or "
                "change it with set-source, set-pipeline, set-weight"
            )
        entry.partition = allocate(register, stream, requested, partitions, set())
        return {stream.stream_id: entry}

    return change


def editing(stream_id: str, edit: Edit) -> Change:
    """Apply `edit` to a stream that is there to stay."""

    def change(register: Register, _: int) -> Mapping[str, Stream | None]:
        before = known(register, stream_id)
        if before.state == STREAM_STATE_REMOVING:
            raise ConfigError(
                f"stream {stream_id} is being removed: end that with `skyscraper stream remove {stream_id}`, then add "
                "it again"
            )
        entry = Stream()
        entry.CopyFrom(before)
        edit(entry)
        return {} if entry == before else {stream_id: entry}

    return change


def pausing(stream_id: str) -> Change:
    return editing(stream_id, partial(_set_state, STREAM_STATE_PAUSED))


def resuming(stream_id: str) -> Change:
    return editing(stream_id, partial(_set_state, STREAM_STATE_ACTIVE))


def retiring(stream_id: str) -> Change:
    """The first half of a removal: nothing is published any more, and the id and the partition stay taken."""

    def change(register: Register, _: int) -> Mapping[str, Stream | None]:
        entry = Stream()
        entry.CopyFrom(known(register, stream_id))
        if entry.state == STREAM_STATE_REMOVING:
            return {}
        entry.state = STREAM_STATE_REMOVING
        return {stream_id: entry}

    return change


def releasing(stream_id: str, publisher: str) -> Change:
    """A publisher says that it holds nothing more of a stream that is being removed."""

    def change(register: Register, _: int) -> Mapping[str, Stream | None]:
        registration = register.get(stream_id)
        if registration is None or registration.stream.state != STREAM_STATE_REMOVING:
            return {}
        if registration.stream.publisher != publisher:
            return {}
        entry = Stream()
        entry.CopyFrom(registration.stream)
        entry.publisher = ""
        return {stream_id: entry}

    return change


def forgetting(stream_id: str, *, force: bool) -> Change:
    """The second half of a removal. Without `force` the stream must have been retired and released."""

    def change(register: Register, _: int) -> Mapping[str, Stream | None]:
        registration = register.get(stream_id)
        if registration is None:
            return {}
        entry = registration.stream
        if not force and (entry.state != STREAM_STATE_REMOVING or entry.publisher):
            raise ConfigError(f"stream {stream_id} was changed by somebody else meanwhile: remove it again")
        return {stream_id: None}

    return change


def known(register: Register, stream_id: str) -> Stream:
    """Its entry. Raises ConfigError."""
    if stream_id not in register:
        names = ", ".join(sorted(register)) or "none"
        raise ConfigError(f"there is no stream {stream_id}; registered are: {names[:500]}")
    return register[stream_id].stream


def _set_state(state: int, entry: Stream) -> None:
    entry.state = state  # type: ignore[assignment]
