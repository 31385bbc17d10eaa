"""The number of a publisher's incarnation: Unix milliseconds, but never smaller than the one before."""

from __future__ import annotations

import contextlib
from pathlib import Path


def next_epoch(folder: Path, unix_seconds: float) -> int:
    """The epoch to open a stream with, remembered in `folder`.

    A clock that was set back would give a smaller number, and readers would take everything new for repeats.
    """
    file = folder / "epoch"
    last = 0
    with contextlib.suppress(OSError, ValueError):
        last = int(file.read_text())
    epoch = max(round(unix_seconds * 1000), last + 1)
    # Where it cannot be written, the clock alone decides, as it does for any publisher that is not ours.
    with contextlib.suppress(OSError):
        fresh = file.with_suffix(".new")
        fresh.write_text(str(epoch))
        fresh.replace(file)
    return epoch
