"""A server with mutual TLS: the decoder's client with a certificate is served, others are not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from certificates import make_certificates
from numpy.typing import NDArray
from skyscraper.errors import ConfigError
from skyscraper.rpc.errors import InferenceUnreachable
from skyscraper.rpc.model_client import OipModelClient, open_channel
from skyscraper.rpc.tls import ClientTls, channel_credentials

ECHO: dict[str, NDArray[Any]] = {
    "floats": np.zeros((1, 4), dtype=np.float32),
    "counts": np.zeros((1, 2), dtype=np.int64),
    "flags": np.zeros((1, 2), dtype=np.bool_),
}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pki"))


def infer(target: str, credentials: grpc.ChannelCredentials | None) -> Any:
    channel = open_channel(target, credentials)
    try:
        client = OipModelClient(channel, max_rows=1, call_seconds=5, retry_seconds=2)
        return client.infer("echo", ECHO)
    finally:
        channel.close()


def test_a_client_with_a_certificate_is_served_and_one_without_is_not(
    pki: Path, new_server: Callable[..., Any]
) -> None:
    pair = {"certificate_path": f"{pki}/tls.crt", "key_path": f"{pki}/tls.key"}
    server = new_server(tls=pair | {"client_ca_path": f"{pki}/ca.crt"}).start()
    target = f"localhost:{server.port}"
    known = ClientTls(ca_path=pki / "ca.crt", certificate_path=pki / "tls.crt", key_path=pki / "tls.key")
    assert infer(target, channel_credentials(known))
    nameless = grpc.ssl_channel_credentials(root_certificates=(pki / "ca.crt").read_bytes())
    for stranger in (nameless, None):
        with pytest.raises(InferenceUnreachable):
            infer(target, stranger)


def test_a_missing_certificate_is_named(pki: Path) -> None:
    lacking = ClientTls(ca_path=pki / "ca.crt", certificate_path=pki / "none.crt", key_path=pki / "tls.key")
    with pytest.raises(ConfigError, match=r"none\.crt cannot be read"):
        channel_credentials(lacking)
    assert channel_credentials(None) is None


def test_no_request_fails_while_connections_are_renewed_under_it(new_server: Callable[..., Any]) -> None:
    server = new_server(max_connection_age_seconds=1.0).start()
    channel = open_channel(server.target)
    client = OipModelClient(channel, max_rows=1, call_seconds=5, retry_seconds=5)
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        assert client.infer("echo", ECHO)
    channel.close()
