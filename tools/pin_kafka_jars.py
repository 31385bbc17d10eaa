"""Write localkafka/jars.txt anew from what Maven resolves for localkafka/pom.xml. Run after changing the pom."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "libs/skyscraper/src/skyscraper/localkafka"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *("mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"),
                *("-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true", f"-DoutputDirectory={folder}"),
            ],
            check=True,
        )
        jars = sorted(Path(folder).rglob("*.jar"), key=lambda jar: jar.name)
        lines = [
            f"{hashlib.sha256(jar.read_bytes()).hexdigest()} {jar.stat().st_size} {jar.relative_to(folder)}"
            for jar in jars
        ]
    head = (
        "# sha256, bytes, path in a Maven repository: what pom.xml resolves to. Written by tools/pin_kafka_jars.py.\n"
    )
    (HERE / "jars.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} jars pinned")


if __name__ == "__main__":
    main()
