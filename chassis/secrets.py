"""Secrets of a new deployment: `python -m chassis.secrets FOLDER [--database-host HOST]`.

Makes what is missing and leaves what is there, so it may run at every start. Each service gets a folder of its own,
to be given to it as SECRETS_DIR, with a file for each setting; `service_jwks` holds the public keys of all callers.
The files are readable by their owner only.
"""

import argparse
import base64
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

SERVICES = ("user", "product", "payment", "order")
AUDIT = "audit"
"""Whoever runs the audit calls the services as one more caller."""


def generate(folder: Path, *, database_host: str | None = None, owners: bool = False) -> None:
    """Make the secrets that are missing below `folder`.

    With `database_host`, in which `{service}` stands for a service's name, each service also gets a `database_url`, of
    the database `souk_<service>` and the role of that name there, and `postgres/<service>_password` has the password
    for whoever makes the roles, beside `postgres/password` for the superuser, and `grafana/admin_password` is made for
    whoever watches. With `owners` each database has a second role, `souk_<service>_owner`, to migrate as: its URL is in
    `<service>_owner`, its password beside the others.
    """
    public: list[dict[str, str]] = []
    for caller in (*SERVICES, AUDIT):
        jwk = _made(folder / caller / "service_key", lambda: OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate()))
        key = OKPAlgorithm.from_jwk(jwk)
        assert isinstance(key, Ed25519PrivateKey)
        public.append(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": caller})
    jwks = orjson.dumps({"keys": public}).decode()
    for caller in (*SERVICES, AUDIT):
        _write(folder / caller / "service_jwks", jwks)
    _made(folder / "user" / "key_encryption_key", lambda: base64.b64encode(os.urandom(32)).decode())
    _made(folder / "user" / "admin_password", lambda: secrets.token_urlsafe(18))
    if database_host is not None:
        _made(folder / "grafana" / "admin_password", lambda: secrets.token_urlsafe(18))
        _made(folder / "postgres" / "password", lambda: secrets.token_urlsafe(24))
        for service in SERVICES:
            for role in (service, *([f"{service}_owner"] if owners else [])):
                password = _made(folder / "postgres" / f"{role}_password", lambda: secrets.token_urlsafe(24))
                # A plain `user` is a reserved word of SQL.
                login = f"souk_{role}:{password}@{database_host.replace('{service}', service)}"
                _write(folder / role / "database_url", f"postgresql://{login}/souk_{service}")


def _made(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write(path, make())
    return path.read_text()


def _write(path: Path, content: str) -> None:
    """Replace the file whole, so that a crash leaves no half of a secret."""
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    unfinished.write_text(content)
    unfinished.replace(path)


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m chassis.secrets", description="Make the secrets of a deployment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database-host", help="where PostgreSQL answers, as host or host:port")
    arguments = parser.parse_args()
    generate(arguments.folder, database_host=arguments.database_host)


if __name__ == "__main__":
    main()
