"""Typed configuration of a service: a TOML file, overridden by environment variables, unknown keys refused."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from skyscraper.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings. Every field has a description: the reference page is generated from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class KafkaConfig(Settings):
    """How to reach Kafka."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="Comma-separated host:port of some brokers.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As in Kafka's own clients."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="Needed with SASL_PLAINTEXT and SASL_SSL."
    )
    sasl_username: str | None = Field(None, description="Needed with SASL.")
    sasl_password: SecretStr | None = Field(None, description="Needed with SASL. Never printed.")
    ssl_ca_location: str | None = Field(
        None, description="PEM file of the certificate authority that signed the brokers."
    )
    ssl_certificate_location: str | None = Field(None, description="PEM file of this client's certificate (mTLS).")
    ssl_key_location: str | None = Field(None, description="PEM file of this client's key (mTLS).")

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> KafkaConfig:
        wants_sasl = self.security_protocol.startswith("SASL")
        given = [self.sasl_mechanism, self.sasl_username, self.sasl_password]
        if wants_sasl and not all(given):
            raise ValueError(
                f"security_protocol is {self.security_protocol}: "
                "set sasl_mechanism, sasl_username and sasl_password too"
            )
        if not wants_sasl and any(given):
            raise ValueError(
                f"sasl_* is set but security_protocol is {self.security_protocol}: use SASL_SSL, or remove sasl_*"
            )
        return self

    def client(self) -> dict[str, Any]:
        """These settings under librdkafka's names."""
        named = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
        }
        # A broker that is away is tried four times a second, not twenty; each try may be logged.
        paced = {"reconnect.backoff.ms": 250, "reconnect.backoff.max.ms": 1000}
        return paced | {name: value for name, value in named.items() if value is not None}


class MetricsConfig(Settings):
    """Where /metrics, /healthz and /readyz are served."""

    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 in a container.")
    port: int = Field(0, ge=0, le=65535, description="TCP port; 0 picks a free one and logs it.")


class EnvironmentSettings(Settings):
    """Settings that `load_config` reads from a file and from variables with this prefix."""

    env_prefix: ClassVar[str]


INSTANCE = r"^[a-zA-Z0-9._-]{1,100}$"


def is_instance_name(text: str) -> bool:
    return re.fullmatch(INSTANCE, text) is not None


class ServiceConfig(EnvironmentSettings):
    """The settings every service has. A service adds its own fields and its environment prefix."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_"

    instance: str = Field(
        "0",
        pattern=INSTANCE,
        description="Name of this process among its kind, stable across restarts (the pod name of a StatefulSet).",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json for containers, console for people; auto is console on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe event logged."
    )
    shutdown_seconds: float = Field(
        20.0, gt=0, description="How long a stopping service may take to finish what it holds after SIGTERM."
    )
    metrics: MetricsConfig = Field(default_factory=MetricsConfig, description="Where metrics and health are served.")


C = TypeVar("C", bound=EnvironmentSettings)


def load_config(cls: type[C], path: Path | None, environ: dict[str, str] | None = None) -> C:
    """Read `path` (TOML), lay the environment over it, and validate.

    A variable `<PREFIX><FIELD>` or `<PREFIX><GROUP>__<FIELD>` overrides one field, e.g.
    `SKYSCRAPER_DECODER_KAFKA__BOOTSTRAP_SERVERS`. Raises ConfigError naming every bad field at once.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(cls.env_prefix):
            _lay(values, name.removeprefix(cls.env_prefix).lower().split("__"), text)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in fault['loc']) or '(whole)'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        where = f"{path} and {cls.env_prefix}* variables" if path else f"{cls.env_prefix}* variables and defaults"
        raise ConfigError(
            "\n".join([f"the configuration of {cls.__name__} ({where}) cannot be used:", *lines])
        ) from error


def _lay(values: dict[str, Any], keys: list[str], text: str) -> None:
    """Put one environment variable's text at its place; TOML syntax where it parses (lists, tables), else the text."""
    for key in keys[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'__'.join(keys).upper()}: {key} is a value, not a group of settings")
        values = inner
    if text.startswith(("[", "{")):
        try:
            values[keys[-1]] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{'__'.join(keys).upper()}: not valid TOML: {error}") from error
    else:
        values[keys[-1]] = text
