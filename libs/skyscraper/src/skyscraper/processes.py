"""Child processes that never outlive their parent, and free ports for them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def spawn(
    command: Sequence[str],
    log_path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    die_with_parent: bool = True,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `log_path`, in a session of its own, so that Ctrl-C reaches only
    the parent, which then stops its children in order.

    With `die_with_parent` the kernel kills the child as soon as the *thread* that started it ends, however it ends
    (Linux prctl(2), PR_SET_PDEATHSIG): call from the main thread. Elsewhere than on Linux the child is on its own.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if environ is None else {**os.environ, **environ},
            preexec_fn=_die_with_parent if die_with_parent else None,  # noqa: PLW1509 - async-signal-safe: one syscall
            cwd=cwd,
        )


def stop(process: subprocess.Popen[bytes], *, deadline_seconds: float) -> bool:
    """SIGTERM, then SIGKILL at the deadline. True when it ended by itself."""
    if process.poll() is not None:
        return True
    process.terminate()
    try:
        process.wait(deadline_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. All are held until the last is chosen, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def tail(path: Path, *, lines: int = 15, max_bytes: int = 16_384) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - max_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def _die_with_parent() -> None:
    if _LIBC is not None and hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
