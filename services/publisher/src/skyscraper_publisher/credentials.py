"""Passwords of cameras: by host, from the publisher's own settings, never from Kafka.

By host and not by stream: whoever may write `sky.streams` names the source of a stream, and could have its password
sent to a machine of their own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr
from skyscraper.errors import ConfigError


def with_credentials(source: str, known: Mapping[str, SecretStr]) -> str:
    """The URL with what is known for its `host:port`, else for its host; any other source as it is."""
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError:
        return source
    if not parts.scheme or not host or "@" in parts.netloc:
        return source
    secret = known.get(f"{host}:{port}") or known.get(host)
    if secret is None:
        return source
    user, _, password = secret.get_secret_value().partition(":")
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}"))


def read_credentials(file: Path | None, own: Mapping[str, SecretStr]) -> dict[str, SecretStr]:
    """The file's entries laid over `own`. Read anew each time, so that a secret may be renewed. Raises ConfigError,
    which never holds a value."""
    known = {host.lower(): secret for host, secret in own.items()}
    if file is not None:
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read credentials_file {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # The parser's own message may quote the line.
            raise ConfigError(f"credentials_file {file} is not valid TOML") from None
        for host, value in given.items():
            if not isinstance(value, str) or ":" not in value:
                raise ConfigError(f'{file}: the credentials of {host} are not of the form "user:password"')
            known[host.lower()] = SecretStr(value)
    return known
