"""Getting a pinned file over HTTP: resumed where the server allows it, bounded in tries, time and bytes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from skyscraper.models.errors import ModelError, Unreachable, WrongContent

_CHUNK_BYTES = 1 << 20
# A registry's page about one package; npm's about a package with hundreds of releases stays below 10 MB.
_MAX_PAGE_BYTES = 32 << 20
# Answers that another try may change, besides all of 500 and above: request timeout and too many requests.
_PASSING_STATUSES = (408, 429)
_PROGRESS_EVERY_SECONDS = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How long a fetch goes on against faults that may pass."""

    tries: int = 4
    first_wait_seconds: float = 0.5
    """Doubled after every try."""
    silence_seconds: float = 30.0
    """Longest wait for a connection, or for the next bytes."""
    deadline_seconds: float = 1200.0
    """For one file in all its tries: 145 MB at 1 Mbit/s."""


PATIENCE = Patience()


class _CutShort(Exception):  # noqa: N818 - internal signal, turned into Unreachable
    """The answer ended before the pinned size."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    size_bytes: int,
    say: Callable[[str], None] = lambda _: None,
    patience: Patience = PATIENCE,
) -> None:
    """Fetch `url` into `path`; bytes that are there already are kept and the rest is asked for.

    Raises Unreachable after the last try, WrongContent unless it is the pinned file (and removes it), and ModelError
    where the disk does not take it.
    """
    shown = without_credentials(url)
    ends_at = time.monotonic() + patience.deadline_seconds

    def attempt() -> None:
        resumed = path.stat().st_size if path.exists() else 0
        if resumed < size_bytes:
            resumed = _append(url, path, size_bytes, ends_at, patience, say)
        found_bytes, found = path.stat().st_size, _digest(path)
        if found_bytes < size_bytes:
            raise _CutShort(f"it ended after {found_bytes} of {size_bytes} bytes")
        if found == sha256:
            return
        path.unlink()
        if resumed:
            raise _CutShort("its parts, fetched one after the other, do not make the pinned file")
        raise WrongContent(
            f"{shown} is not the pinned file: SHA-256 {found}, wanted {sha256}. The registry serves another file; "
            "nothing was kept. Ask its operator, or use another registry (PIP_INDEX_URL, npm_config_registry)."
        )

    _persist(attempt, shown, ends_at, patience, say)


def get_page(url: str, accept: str, *, patience: Patience = PATIENCE) -> tuple[str, bytes]:
    """A registry's page: its content type and content. Raises Unreachable, or ModelError where there is none."""
    ends_at = time.monotonic() + patience.deadline_seconds

    def attempt() -> tuple[str, bytes]:
        with urllib.request.urlopen(  # noqa: S310 - _request lets http and https through only
            _request(url, {"Accept": accept}), timeout=patience.silence_seconds
        ) as answer:
            content = answer.read(_MAX_PAGE_BYTES + 1)
            if len(content) > _MAX_PAGE_BYTES:
                raise WrongContent(f"{without_credentials(url)} is larger than {_MAX_PAGE_BYTES} bytes")
            return answer.headers.get_content_type(), content

    return _persist(attempt, without_credentials(url), ends_at, patience, lambda _: None)


def without_credentials(url: str) -> str:
    """The URL as it may be shown: a registry's user and password stay out of messages."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _persist(
    attempt: Callable[[], _T], shown: str, ends_at: float, patience: Patience, say: Callable[[str], None]
) -> _T:
    """Try until it works; a fault that cannot pass ends it at once."""
    for number in range(1, patience.tries + 1):
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in _PASSING_STATUSES:
                raise ModelError(f"{shown} answers {error.code} {error.reason}") from error
            fault: Exception = error
        except (OSError, http.client.HTTPException, _CutShort) as error:
            fault = error
        wait_seconds = patience.first_wait_seconds * 2 ** (number - 1)
        if number == patience.tries or time.monotonic() + wait_seconds > ends_at:
            raise Unreachable(
                f"cannot fetch {shown}: {fault} (try {number} of {patience.tries}). Is this machine offline?"
            ) from fault
        say(f"{shown}: {fault}; trying again in {wait_seconds:.1f} s")
        time.sleep(wait_seconds)
    raise AssertionError("unreachable")


def _append(
    url: str, path: Path, size_bytes: int, ends_at: float, patience: Patience, say: Callable[[str], None]
) -> int:
    """Add to `path` what it lacks, or write it anew where the server sends all; returns how many bytes were kept."""
    have = path.stat().st_size if path.exists() else 0
    request = _request(url, {"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=patience.silence_seconds) as answer:  # noqa: S310 - see _request
        have = have if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        with _opened(path, "ab" if have else "wb") as file:
            _copy(answer, file, path, have, size_bytes, ends_at, say)
    return have


def _copy(
    answer: http.client.HTTPResponse,
    file: BinaryIO,
    path: Path,
    have: int,
    size_bytes: int,
    ends_at: float,
    say: Callable[[str], None],
) -> None:
    total, said_at = have, time.monotonic()
    while chunk := answer.read1(_CHUNK_BYTES):
        total += len(chunk)
        if total > size_bytes:
            path.unlink()
            raise WrongContent(
                f"{without_credentials(answer.url)} is larger than the pinned {size_bytes} bytes; nothing was kept"
            )
        try:
            file.write(chunk)
        except OSError as error:
            raise _unwritable(path, error) from error
        now = time.monotonic()
        if now > ends_at:
            raise Unreachable(
                f"{without_credentials(answer.url)} came too slowly: {total} of {size_bytes} bytes at the deadline; "
                "the next call goes on from there"
            )
        if now - said_at > _PROGRESS_EVERY_SECONDS:
            say(f"{total / size_bytes:.0%} of {size_bytes / 1e6:.0f} MB")
            said_at = now


def _opened(path: Path, mode: str) -> BinaryIO:
    try:
        # Unbuffered: the disk's error comes from the write that met it, not from a later close.
        return path.open(mode, buffering=0)  # type: ignore[return-value]
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"cannot write {path}: {error.strerror}. Free space there, or set SKYSCRAPER_HOME to another folder."
    )


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ModelError(
            f"{without_credentials(url)}: only http and https are fetched (every file is pinned by SHA-256)"
        )
    if parts.username is not None:
        user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        headers = {**headers, "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return urllib.request.Request(without_credentials(url), headers=headers)  # noqa: S310 - checked above


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
