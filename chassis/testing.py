"""What the services' tests build on: settings with fresh keys, users' tokens, and applications wired without a
network.
"""

import time
from typing import Any, TypeVar
from uuid import UUID

import httpx2
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from jwt.algorithms import OKPAlgorithm

from chassis.app import Service
from chassis.auth import ACCESS_TOKEN_TYPE, ALGORITHM, ISSUER, JwkSet, Role, ServiceCredential
from chassis.in_process import InProcessTransport
from chassis.settings import ServiceSettings
from chassis.telemetry import METHODS, UNMATCHED

STATUSES = (200, 201, 202, 204, 304, 400, 401, 402, 403, 404, 405, 409, 412, 413, 415, 422, 429, 500, 503)
"""Every status that the contract has."""
CALLERS = ("user", "product", "payment", "order", "audit")
Settings = TypeVar("Settings", bound=ServiceSettings)


def service_keys(callers: tuple[str, ...] = CALLERS) -> tuple[dict[str, str], str]:
    """Fresh private keys (JWK) by caller, and the set of their public keys, as the settings take them."""
    private = {caller: Ed25519PrivateKey.generate() for caller in callers}
    public = [OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": name} for name, key in private.items()]
    return {name: OKPAlgorithm.to_jwk(key) for name, key in private.items()}, orjson.dumps({"keys": public}).decode()


KEYS, JWKS = service_keys()
"""The keys of all callers in this test process."""


LIVES_S = 86_400
"""Of a token: no run of the tests takes longer."""
PATIENT_S = 20.0
"""Databases are made and dropped here all the time, for which PostgreSQL keeps new connections waiting."""


def settings_for(settings_class: type[Settings], service: str, database_url: str, **overrides: Any) -> Settings:
    """Settings as the environment would give them, for the database of one test."""
    values = {
        "port": 0,
        "database_url": database_url,
        "database_acquire_timeout_s": PATIENT_S,
        "service_key": KEYS[service],
        "service_jwks": JWKS,
    }
    return settings_class.model_validate(values | overrides)


def credential(caller: str) -> ServiceCredential:
    """The credential of a calling service, the audit's included: `credential("order").authorization("product")`."""
    return ServiceCredential(caller, settings_for(ServiceSettings, caller, "postgresql:///unused"))


class UserTokens:
    """Stands for the user service where a test needs no more of it than its keys and tokens."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._kid = "test"

    def jwks(self) -> JwkSet:
        """The public keys."""
        return {"keys": [OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True) | {"kid": self._kid}]}

    def headers(self, user_id: UUID, role: Role = "customer", **claims: Any) -> dict[str, str]:
        """`Authorization` of a user; `claims` replace the usual ones."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": ISSUER, "sub": str(user_id), "role": role, "iat": now, "exp": now + LIVES_S}
        headers = {"kid": self._kid, "typ": ACCESS_TOKEN_TYPE}
        return {"Authorization": f"Bearer {jwt.encode(usual | claims, self._key, ALGORITHM, headers)}"}

    def transport(self) -> httpx2.AsyncBaseTransport:
        """Answers the one call that other services make for keys."""
        app = FastAPI(openapi_url=None)
        app.add_api_route("/api/v1/auth/jwks", self.jwks)
        return InProcessTransport(app)


def answer_in_every_way(service: Service) -> None:
    """Count an answer of each kind to each operation of the contract, and to what no route knows, as if it were given:
    the most series that requests can make.
    """
    operations = [(path, method.upper()) for path, methods in service.openapi()["paths"].items() for method in methods]
    for handler, method in (*operations, *((UNMATCHED, method) for method in (*METHODS, "BREW"))):
        for status in STATUSES:
            service.telemetry.http.observe(handler, method, status, 123.456789, 12_345, 123_456)


def in_process(app: Any) -> InProcessTransport:
    """A transport into an application of this process; its unexpected errors are answers, as over a network."""
    return InProcessTransport(app)


def client(app: Any, **options: Any) -> httpx2.AsyncClient:
    """A client of one application of this process."""
    return httpx2.AsyncClient(transport=in_process(app), base_url="http://souk.test", **options)
