"""The demo shop: a catalogue and a customer, made through the API as anybody would make them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
from starlette.types import ASGIApp

from local.edge import Edge

CATALOGUE = Path(__file__).with_name("catalogue.ndjson")
CUSTOMER_EMAIL = "customer@souk.example"
CUSTOMER_PASSWORD = "customer of souk"  # noqa: S105 - of a shop that answers on this machine only


async def seed(
    services: Mapping[str, ASGIApp], admin_email: str, admin_password: str, say: Callable[[str], None]
) -> None:
    """Put the demo catalogue into a shop that has no products, and register the demo customer."""
    transport = httpx2.ASGITransport(Edge(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://souk.local") as shop:
        products: dict[str, Any] = (await shop.get("/api/v1/products", params={"limit": 1})).json()
        if products["items"]:
            return
        say("seeding the demo catalogue")
        customer = {"email": CUSTOMER_EMAIL, "password": CUSTOMER_PASSWORD, "name": "Demo Customer"}
        registered = await shop.post("/api/v1/auth/register", json=customer)
        if registered.status_code not in {201, 409}:
            registered.raise_for_status()
        signed_in = await shop.post(
            "/api/v1/auth/token",
            data={"grant_type": "password", "username": admin_email, "password": admin_password},
        )
        signed_in.raise_for_status()
        imported = await shop.post(
            "/api/v1/products/import",
            content=CATALOGUE.read_bytes(),
            headers={
                "Authorization": f"Bearer {signed_in.json()['access_token']}",
                "Content-Type": "application/x-ndjson",
            },
        )
        imported.raise_for_status()
        say(f"{imported.json()['created']} products in stock")
