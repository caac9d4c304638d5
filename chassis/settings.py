"""Settings: read once from the environment and from secret files, then frozen and passed in.

Every field is read from the environment variable of its upper-case name, or from a file of its lower-case name in
the folder that `SECRETS_DIR` names; a variable wins over a file. Secrets have no default, so a service that misses
one does not start.
"""

import os
from typing import Annotated, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.origins import origins_setting

PLACEHOLDERS = frozenset({"", "changeme", "change-me", "password", "secret", "admin", "example", "test", "todo"})


def refuse_placeholder(secret: SecretStr) -> SecretStr:
    """Refuse a secret that somebody left as a manifest or an example had it."""
    if secret.get_secret_value().strip().lower() in PLACEHOLDERS:
        raise ValueError("is a placeholder, not a secret")
    return secret


def refuse_placeholder_password(url: SecretStr) -> SecretStr:
    """Refuse a URL whose password somebody left as it was; one without a password is fine."""
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:  # its message would show the password
        raise ValueError("is not a URL") from None
    passwords = parse_qs(parts.query, keep_blank_values=True).get("password", [])
    if parts.password is not None:
        passwords.append(unquote(parts.password))
    for password in passwords:
        refuse_placeholder(SecretStr(password))
    return url


Secret = Annotated[SecretStr, AfterValidator(refuse_placeholder)]


Origins = Annotated[str, AfterValidator(origins_setting)]
"""Where a peer answers: origins separated by commas, each of whose names may stand for several addresses."""


class InvalidSettings(Exception):
    """One line that names each variable which is missing or wrong, without its value."""

    def __init__(self, error: ValidationError) -> None:
        faults = (f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors())
        super().__init__("settings: " + "; ".join(faults))


class ApplicationSettings(BaseSettings):
    """What everything that serves is told, with a database or without. Durations are seconds, sizes bytes."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: int
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    user_url: Origins = "http://127.0.0.1:8001"
    """Where the user service answers."""

    otel_exporter_otlp_endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """Where a collector takes traces, by OTLP over HTTP at `/v1/traces` below it. Empty: there are none."""
    otel_traces_sampler_arg: float = Field(default=1.0, ge=0, le=1)
    """The share that is recorded of the traces that begin here; for others their callers have decided."""

    server_timing: bool = False
    """Whether each answer tells in `Server-Timing` who gave it, how long it took, its trace, and how often a peer was
    asked again (W3C Server Timing). For demonstrations: the names of replicas are nobody's business outside.
    """

    max_in_flight: int = Field(default=256, ge=1)
    """Requests from outside served at once; one more is refused with 503 at once."""

    @classmethod
    def load(cls) -> Self:
        """Build the settings from the environment; raises InvalidSettings."""
        try:
            return cls(_secrets_dir=os.environ.get("SECRETS_DIR"))  # pyright: ignore[reportCallIssue] - from outside
        except ValidationError as error:
            raise InvalidSettings(error) from None


class ServiceSettings(ApplicationSettings):
    """What a service with a database is told, which others call and which calls others in its own name."""

    database_url: Annotated[SecretStr, AfterValidator(refuse_placeholder_password)]
    """postgresql://role:password@host/database, or with `?host=/folder` for a Unix socket."""
    database_pool_size: int = Field(default=10, ge=1)
    database_acquire_timeout_s: float = 1.5
    """How long a request waits for a connection before it is refused with 503: within 2 s of its coming."""
    database_statement_timeout_s: float = 5.0

    service_key: Secret
    """This service's Ed25519 private key as a JWK: it signs the credential that other services see."""
    service_jwks: str
    """The public keys of all callers as a JWK set; a key's `kid` is the caller's name."""

    max_internal_in_flight: int = Field(default=512, ge=1)
    """The same for calls between services, counted apart: they finish what was begun, and are refused last."""
