"""Each service against its OpenAPI document: whatever is sent, no 5xx, and no answer that is not documented."""

# The decorators and checks of schemathesis carry types in part.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUntypedFunctionDecorator=false

import json
from collections.abc import Generator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from chassis.auth import ServiceCredential
from chassis.secrets import SERVICES
from chassis.settings import ServiceSettings
from tests.databases import Databases
from tests.openapi import NOWHERE, create_services
from tests.shop import Shop, running_shop

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
PASSWORD = "correct horse battery staple"
ADDRESS = {"name": "A. Buyer", "line1": "1 High Street", "city": "Leeds", "postal_code": "LS1 1AA", "country": "GB"}

SCHEMAS = {service.service_name: schemathesis.openapi.from_dict(service.openapi()) for service in create_services()}
SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
bounded = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=SLOW)


@schemathesis.serializer("application/x-ndjson", "text/csv")
def _lines(_context: Any, value: Any) -> Any:
    """A body of lines: the document says that it is text, and nothing of what stands in it."""
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value, default=str).encode()


class Target:
    """A shop of its own, since what is sent here would not pass an audit, and what is known to exist in it."""

    def __init__(self, shop: Shop, http: httpx2.Client) -> None:
        self.shop = shop
        self.http = http
        self.admin = self.log_in(shop.admin_email, shop.admin_password)
        self.ids: dict[str, str] = {}
        self._callers = {name: self._credential(name) for name in ("order", "audit")}
        self._customers: dict[str, str] = {}

    def log_in(self, email: str, password: str) -> str:
        """The `Authorization` of a user."""
        form = {"grant_type": "password", "username": email, "password": password}
        answer = self.http.post("/api/v1/auth/token", data=form).raise_for_status()
        return f"Bearer {answer.json()['access_token']}"

    def authorization(self, service: str, operation: Any) -> str | None:
        """Whoever may make this call: the audit, the order service, an admin, a customer, or nobody."""
        definition: dict[str, Any] = operation.definition.raw
        if "security" not in definition:
            return None
        if operation.path.startswith("/internal/"):
            return self._callers["audit" if operation.path.endswith("/audit") else "order"].authorization(service)
        if "403" in definition["responses"] and not operation.path.endswith("/me"):
            return self.admin
        return self._customer(operation.label)

    def _customer(self, operation: str) -> str:
        """Somebody new for each operation, since some delete or lock the account."""
        if operation not in self._customers:
            email = f"{uuid4()}@example.com"
            registration = {"email": email, "password": PASSWORD, "name": "Somebody"}
            self.http.post("/api/v1/auth/register", json=registration).raise_for_status()
            self._customers[operation] = self.log_in(email, PASSWORD)
        return self._customers[operation]

    def _credential(self, caller: str) -> ServiceCredential:
        key = (self.shop.secrets / caller / "service_key").read_text()
        told = {"service_key": key, "service_jwks": "", "port": 0, "database_url": NOWHERE}
        return ServiceCredential(caller, ServiceSettings.model_validate(told))


@pytest.fixture(scope="module")
def target(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Target, None, None]:
    urls = {service: postgres.clone(service) for service in SERVICES}
    with (
        running_shop(urls, tmp_path_factory.mktemp("described")) as shop,
        httpx2.Client(base_url=shop.origin, timeout=30) as http,
    ):
        target = Target(shop, http)
        admin = {"Authorization": target.admin}
        price = {"amount_minor": 900, "currency": "USD"}
        product = {"sku": "MUG-1", "name": "Mug", "category": "kitchen", "price": price}
        product_id = http.post("/api/v1/products", json=product, headers=admin).raise_for_status().json()["id"]
        movement = {"delta": 100, "reason": "delivery"}
        http.post(f"/api/v1/products/{product_id}/stock", json=movement, headers=admin).raise_for_status()
        items = [{"product_id": product_id, "quantity": 1}]
        wanted = {"items": items, "address": ADDRESS, "payment_method": "tok_visa"}
        placed = http.post("/api/v1/orders", json=wanted, headers=admin | {"Idempotency-Key": "1"})
        order = placed.raise_for_status().json()
        for step in ("ship", "deliver"):  # final, so that the stream of its events ends
            http.post(f"/api/v1/orders/{order['id']}/{step}", headers=admin).raise_for_status()
        target.ids = {"product_id": product_id, "order_id": order["id"], "payment_id": order["payment_id"]}
        yield target


def check(case: schemathesis.Case[Any], service: str, target: Target) -> None:
    """Send what was made up, half of the well-formed ids replaced by ones that exist, and check the answer."""
    for name, value in dict(case.path_parameters or {}).items():
        if name in target.ids and is_odd_uuid(value):
            case.path_parameters[name] = target.ids[name]
    authorization = target.authorization(service, case.operation)
    headers = {} if authorization is None else {"Authorization": authorization}
    case.call_and_validate(base_url=target.shop.services[service], headers=headers, checks=CHECKS, timeout=30)


def is_odd_uuid(value: object) -> bool:
    """Whether it is a UUID, and an odd one: a half of them."""
    try:
        return UUID(str(value)).int % 2 == 1
    except ValueError:
        return False


@SCHEMAS["user"].parametrize()
@bounded
def test_the_user_service_answers_as_documented(case: schemathesis.Case[Any], target: Target) -> None:
    check(case, "user", target)


@SCHEMAS["product"].parametrize()
@bounded
def test_the_product_service_answers_as_documented(case: schemathesis.Case[Any], target: Target) -> None:
    check(case, "product", target)


@SCHEMAS["payment"].parametrize()
@bounded
def test_the_payment_service_answers_as_documented(case: schemathesis.Case[Any], target: Target) -> None:
    check(case, "payment", target)


@SCHEMAS["order"].parametrize()
@bounded
def test_the_order_service_answers_as_documented(case: schemathesis.Case[Any], target: Target) -> None:
    check(case, "order", target)
