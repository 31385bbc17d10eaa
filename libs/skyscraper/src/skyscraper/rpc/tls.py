"""Mutual TLS for clients: who the server must be, and who this client is."""

from __future__ import annotations

from pathlib import Path

import grpc
from pydantic import Field

from skyscraper.errors import ConfigError
from skyscraper.service.config import Settings


class ClientTls(Settings):
    """PEM files of a client."""

    ca_path: Path = Field(description="PEM file of the authority that signed the server.")
    certificate_path: Path = Field(description="PEM file of this client's certificate chain.")
    key_path: Path = Field(description="PEM file of its key.")


def channel_credentials(tls: ClientTls | None) -> grpc.ChannelCredentials | None:
    """None without TLS. Files are read once: a process that gets a new certificate is restarted. Raises ConfigError."""
    if tls is None:
        return None
    try:
        ca, chain, key = (path.read_bytes() for path in (tls.ca_path, tls.certificate_path, tls.key_path))
    except OSError as error:
        raise ConfigError(f"tls: {error.filename} cannot be read: {error.strerror}") from error
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=chain)
