"""An authority and one certificate for servers and clients, as the chart's."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(folder: Path, *, name: str = "localhost") -> Path:
    """`ca.crt`, and `tls.crt` with `tls.key` for `name`; returns the folder."""
    new_key = ("req", "-newkey", "rsa:2048", "-nodes")
    authority = (
        "-x509",
        "-days",
        "1",
        "-subj",
        "/CN=test-ca",
        "-keyout",
        f"{folder}/ca.key",
        "-out",
        f"{folder}/ca.crt",
    )
    _openssl(*new_key, *authority)
    _openssl(*new_key, "-subj", "/CN=test", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.csr")
    (folder / "names").write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth")
    signer = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "1")
    wanted = ("-in", f"{folder}/tls.csr", "-out", f"{folder}/tls.crt", "-extfile", f"{folder}/names")
    _openssl("x509", "-req", *signer, *wanted)
    return folder


def _openssl(*words: str) -> None:
    subprocess.run(("openssl", *words), check=True, capture_output=True, timeout=30)
