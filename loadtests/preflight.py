"""Before and after a run: whether the target is a healthy shop, what it needs, and what is cleared away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from deploy.terminal import Failed
from loadtests.shelves import HOT_SKU, MOST_PRODUCTS, OWN_CATEGORY, PAGE
from loadtests.target import Target

TIMEOUT_S = 10.0
DELIVERED_TO = 10_000
"""Units of each product that a run begins with, so that it is the load that is measured and not an empty shelf."""


def check(target: Target) -> None:
    """See that a shop answers there, is well and has products; raises Failed."""
    with httpx2.Client(base_url=target.origin, timeout=TIMEOUT_S) as client:
        try:
            answer = client.get("/api/v1/products", params={"limit": 1})
        except httpx2.TransportError as error:
            raise Failed(f"{target.origin} does not answer: {error or type(error).__name__}") from None
    if answer.status_code >= 500:
        raise Failed(f"{target.origin} is not healthy: it answers {answer.status_code} to GET /api/v1/products")
    try:
        page: Any = answer.json()
        items: Sequence[Any] = page["items"]
        souk = answer.status_code == 200 and "next_cursor" in page and "x-request-id" in answer.headers
    except (ValueError, KeyError, TypeError):
        souk, items = False, ()
    if not souk:
        raise Failed(
            f"{target.origin} is not Souk: it answers {answer.status_code} to GET /api/v1/products, not a page"
        )
    if not items:
        raise Failed(f"{target.origin} has no products: there is nothing to shop for")


@dataclass(frozen=True, slots=True)
class Keeper:
    """The admin of the target, signed in."""

    target: Target
    token: str

    def _client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(base_url=self.target.origin, timeout=TIMEOUT_S, headers=headers)

    def deliver(self, hot_units: int | None) -> str:
        """Fill the shelves, and lay out the product of a flash sale where there is one; returns what was done."""
        with self._client() as client:
            filled = 0
            for product in _listed(client):
                lacking = DELIVERED_TO - product["available"]
                if lacking > 0 and product["category"] != OWN_CATEGORY:
                    body = {"delta": lacking, "reason": "load test"}
                    _good(client.post(f"/api/v1/products/{product['id']}/stock", json=body))
                    filled += 1
            if hot_units is None:
                return f"{filled} products filled up to {DELIVERED_TO:,} units"
            line = {
                "sku": HOT_SKU, "name": "Lantern of the day", "category": OWN_CATEGORY, "price_minor": 900,
                "currency": "USD", "on_hand": hot_units,
            }  # fmt: skip
            _good(client.post("/api/v1/products/import", json=line, headers={"Content-Type": "application/x-ndjson"}))
            return f"{filled} products filled up, {hot_units:,} units of {HOT_SKU} laid out"

    def clear_away(self) -> str:
        """Retire what the load tests have imported; what was bought of it stays in its orders."""
        with self._client() as client:
            retired = 0
            for product in _listed(client, OWN_CATEGORY):
                _good(client.delete(f"/api/v1/products/{product['id']}"))
                retired += 1
        return f"{retired} products of the load tests retired"


def sign_in(target: Target) -> Keeper:
    """The admin, signed in; raises Failed where there is no password or it is refused."""
    if not target.admin_password:
        raise Failed(
            f"{target.name}: the admin's journey needs ADMIN_PASSWORD (and ADMIN_EMAIL, where it is not"
            f" {target.admin_email}); without it: JOURNEYS=visitor,buyer,returner"
        )
    form = {"grant_type": "password", "username": target.admin_email, "password": target.admin_password}
    with httpx2.Client(base_url=target.origin, timeout=TIMEOUT_S) as client:
        answer = client.post("/api/v1/auth/token", data=form)
        if answer.status_code != 200:
            raise Failed(
                f"{target.name}: {target.admin_email} cannot sign in: {answer.status_code}, is it ADMIN_PASSWORD?"
            )
        token: str = answer.json()["access_token"]
        me = client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"}).json()
    if me["role"] != "admin":
        raise Failed(f"{target.name}: {target.admin_email} is no admin but a {me['role']}")
    return Keeper(target, token)


def _listed(client: httpx2.Client, category: str | None = None) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    parameters: dict[str, str | int] = {"limit": PAGE, "sort": "name"}
    if category is not None:
        parameters["category"] = category
    while len(items) < MOST_PRODUCTS:
        page = _good(client.get("/api/v1/products", params=parameters)).json()
        items += page["items"]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    return items


def _good(answer: httpx2.Response) -> httpx2.Response:
    if not answer.is_success:
        request = answer.request
        raise Failed(f"{request.method} {request.url.path} was answered {answer.status_code}: {answer.text[:200]}")
    return answer
