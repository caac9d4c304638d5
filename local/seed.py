"""The demo shop: a catalogue and a customer, made through the API as anybody would make them."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp

from local.edge import Edge

CATALOGUE = Path(__file__).with_name("catalogue.ndjson")
CUSTOMER_EMAIL = "customer@souk.example"
CUSTOMER_PASSWORD = "customer of souk"  # noqa: S105 - of a shop that answers on this machine only


class SeedFailed(Exception):
    """What the shop refused while it was seeded, in one line."""

    def __init__(self, answer: httpx2.Response) -> None:
        request = answer.request
        super().__init__(f"seeding: {request.method} {request.url.path} was answered {answer.status_code}")


class SignInRefused(Exception):
    """The admin has another password, so the shop was in use before; nothing was seeded."""

    def __init__(self, admin_email: str) -> None:
        super().__init__(f"not seeded: {admin_email} has another password than the settings say")


async def seed(
    services: Mapping[str, ASGIApp], admin_email: str, admin_password: str, say: Callable[[str], None]
) -> bool:
    """Put the demo catalogue into a shop that has no products; return whether it had none.

    Raises SignInRefused and SeedFailed.
    """
    async with _shop(services) as shop:
        listed = await shop.get("/api/v1/products", params={"limit": 1})
        products: dict[str, Any] = _good(listed).json()
        if products["items"]:
            return False
        say("seeding the demo catalogue")
        signed_in = await shop.post(
            "/api/v1/auth/token",
            data={"grant_type": "password", "username": admin_email, "password": admin_password},
        )
        if signed_in.status_code == HTTPStatus.UNAUTHORIZED:
            raise SignInRefused(admin_email)
        imported = await shop.post(
            "/api/v1/products/import",
            content=CATALOGUE.read_bytes(),
            headers={
                "Authorization": f"Bearer {_good(signed_in).json()['access_token']}",
                "Content-Type": "application/x-ndjson",
            },
        )
        say(f"{_good(imported).json()['created']} products in stock")
        return True


async def register_customer(services: Mapping[str, ASGIApp]) -> None:
    """Register the demo customer, whose password is public; raises SeedFailed."""
    customer = {"email": CUSTOMER_EMAIL, "password": CUSTOMER_PASSWORD, "name": "Demo Customer"}
    async with _shop(services) as shop:
        registered = await shop.post("/api/v1/auth/register", json=customer)
        if registered.status_code != HTTPStatus.CONFLICT:
            _good(registered)


def _shop(services: Mapping[str, ASGIApp]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(Edge(services)), base_url="http://souk.local")


def _good(answer: httpx2.Response) -> httpx2.Response:
    if not answer.is_success:
        raise SeedFailed(answer)
    return answer
