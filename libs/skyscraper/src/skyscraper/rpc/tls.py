"""Mutual TLS: who the other side must be, and who this side is. Files are read once: a process that gets a new
certificate is restarted."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
from pydantic import Field

from skyscraper.errors import ConfigError
from skyscraper.service.config import Settings


class ClientTls(Settings):
    """PEM files of a client."""

    ca_path: Path = Field(description="PEM file of the authority that signed the server.")
    certificate_path: Path = Field(description="PEM file of this client's certificate chain.")
    key_path: Path = Field(description="PEM file of its key.")


class ServerTls(Settings):
    """PEM files of a server; with `client_ca_path` clients must show a certificate of that authority (mTLS)."""

    certificate_path: Path = Field(description="PEM file of this server's certificate chain.")
    key_path: Path = Field(description="PEM file of its key.")
    client_ca_path: Path | None = Field(None, description="PEM file of the authority that signs clients.")


def channel_credentials(tls: ClientTls | None) -> grpc.ChannelCredentials | None:
    """None without TLS. Raises ConfigError."""
    if tls is None:
        return None
    ca, chain, key = _read(tls.ca_path, tls.certificate_path, tls.key_path)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=chain)


def server_credentials(tls: ServerTls | None) -> grpc.ServerCredentials | None:
    """None without TLS. Raises ConfigError."""
    if tls is None:
        return None
    key, chain = _read(tls.key_path, tls.certificate_path)
    ca = None if tls.client_ca_path is None else _read(tls.client_ca_path)[0]
    return grpc.ssl_server_credentials([(key, chain)], root_certificates=ca, require_client_auth=ca is not None)


def listen(server: grpc.Server | grpc.aio.Server, host: str, port: int, tls: ServerTls | None) -> int:
    """The port, which is another one where 0 is asked for. Raises ConfigError."""
    address, credentials = f"{host}:{port}", server_credentials(tls)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"host {host}, port {port}: cannot listen there; is the port taken?") from error


def _read(*paths: Path) -> list[bytes]:
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise ConfigError(f"tls: {error.filename} cannot be read: {error.strerror}") from error
