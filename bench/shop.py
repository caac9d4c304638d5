"""The shop to be measured: its services as processes, with a catalogue, an admin and customers."""

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from http import HTTPStatus
from itertools import count
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from uuid import uuid4

import httpx2
import orjson

from bench import load, measure
from chassis.secrets import SERVICES
from chassis.testing import service_keys
from local.ports import free_ports
from local.postgres import EmbeddedPostgres

ADDRESS = {"name": "Ada", "line1": "1 Quay", "city": "Lisbon", "postal_code": "1100", "country": "PT"}


class Shop:
    """Four services on one PostgreSQL, which runs on the load's core and keeps what it acknowledges."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres) -> None:
        self.folder = folder
        self.postgres = postgres
        self.ports: dict[str, int] = dict(zip(SERVICES, count(free_ports(len(SERVICES))), strict=False))
        self._keys, self._jwks = service_keys()
        self._admin = ("admin@example.com", token_urlsafe())
        self._key_encryption_key = b64encode(os.urandom(32)).decode()

    @contextmanager
    def running(self, *services: str, **settings: str) -> "Generator[dict[str, measure.ServerProcess]]":
        """Run some services, or all, on migrated databases, with these settings beyond the usual ones."""
        with ExitStack() as stack:
            yield {service: stack.enter_context(self._run(service, settings)) for service in services or SERVICES}

    def _run(self, service: str, settings: Mapping[str, str]) -> "AbstractContextManager[measure.ServerProcess]":
        self.migrate(service)
        environment = {**self._environment(service), **settings}
        return measure.server(f"services.{service}", port=self.ports[service], environment=environment)

    def migrate(self, service: str) -> None:
        """Make a service's database and bring it up to date; safe to run twice."""
        self.postgres.create_database(service)
        command = (sys.executable, "-m", f"services.{service}", "migrate")
        environment = os.environ | self._environment(service)
        subprocess.run(command, cwd=measure.ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)

    def _environment(self, service: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.postgres.url(service),
            "HOST": "127.0.0.1",
            "PORT": str(self.ports[service]),
            "SERVICE_KEY": self._keys[service],
            "SERVICE_JWKS": self._jwks,
            **{f"{name.upper()}_URL": self.url(name) for name in SERVICES},
            "ADMIN_EMAIL": self._admin[0],
            "ADMIN_PASSWORD": self._admin[1],
            "KEY_ENCRYPTION_KEY": self._key_encryption_key,
        }

    def url(self, service: str) -> str:
        """Where a service answers."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def get(self, service: str, path: str) -> httpx2.Response:
        """One answer, for the unit to repeat."""
        return httpx2.get(self.url(service) + path).raise_for_status()

    def sign_in(self, email: str, password: str) -> dict[str, str]:
        """The `Authorization` of a user."""
        form = {"grant_type": "password", "username": email, "password": password}
        answer = httpx2.post(self.url("user") + "/api/v1/auth/token", data=form).raise_for_status()
        return {"authorization": f"Bearer {answer.json()['access_token']}"}

    @cached_property
    def admin(self) -> dict[str, str]:
        """The admin's `Authorization`."""
        return self.sign_in(*self._admin)

    def customers(self, count: int) -> list[dict[str, str]]:
        """Register customers and return the `Authorization` of each."""
        return [self._register() for _ in range(count)]

    def _register(self) -> dict[str, str]:
        account = {"email": f"{uuid4().hex}@example.com", "password": token_urlsafe(), "name": "Ada"}
        httpx2.post(self.url("user") + "/api/v1/auth/register", json=account).raise_for_status()
        return self.sign_in(account["email"], account["password"])

    def stock(self, count: int, on_hand: int = 10**6) -> list[str]:
        """Import `count` products, all of them plenty in stock, and return the ids of the newest hundred."""
        lines = b"\n".join(orjson.dumps(product(number, on_hand)) for number in range(count))
        answer = httpx2.post(
            self.url("product") + "/api/v1/products/import",
            content=lines,
            headers=self.admin | {"content-type": "application/x-ndjson"},
            timeout=600,
        ).raise_for_status()
        rejected = answer.json()["rejected"]
        if rejected:
            raise load.UnexpectedAnswer(f"the import rejected {rejected[0]}")
        page = self.get("product", "/api/v1/products?limit=100").json()
        return [item["id"] for item in page["items"]]


def product(number: int, on_hand: int) -> dict[str, Any]:
    """A product as a line of the import; prices ascend by one minor unit, and one category holds a tenth."""
    return {
        "sku": f"BENCH-{number:07}",
        "name": f"Lantern number {number}",
        "description": "A lantern of blown glass and brushed steel, with a handle that folds flat for the road. " * 3,
        "category": f"shelf-{number % 10}",
        "tags": ["glass", "steel", f"tag-{number % 100}"],
        "price_minor": 1000 + number,
        "currency": "USD",
        "image_url": f"https://images.example.com/{number}.svg",
        "attributes": {"height_mm": number % 400, "colour": "amber"},
        "on_hand": on_hand,
    }


def order(customer: dict[str, str], product_ids: Sequence[str]) -> load.Request:
    """A checkout of one unit of each product."""
    body = {
        "items": [{"product_id": product_id, "quantity": 1} for product_id in product_ids],
        "address": ADDRESS,
        "payment_method": "tok_visa",
    }
    return load.request(
        "POST",
        "/api/v1/orders",
        headers=customer | {"idempotency-key": uuid4().hex},
        body=orjson.dumps(body),
        expected=(HTTPStatus.CREATED,),
    )
