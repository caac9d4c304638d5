"""Three processes of the order service on one database: one key is one order, and nothing is oversold."""

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from uuid import uuid4

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from tests.databases import Databases
from tests.shop import Shop, running_shop

ADDRESS = {"name": "Ada", "line1": "12 St James Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}
PASSWORD = "one of many buyers"
BUYERS = 100
CHECKOUTS_OF_EACH = 5
UNITS = 100


@pytest.fixture(scope="module")
def replicated(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop, None, None]:
    """A shop of its own with three order and two product processes, so that its audit is of these tests alone."""
    urls = {service: postgres.clone(service) for service in SERVICES}
    with running_shop(urls, tmp_path_factory.mktemp("replicas"), replicas={"order": 3, "product": 2}) as shop:
        yield shop


async def signed_in(client: httpx2.AsyncClient, email: str, password: str) -> dict[str, str]:
    """Sign in and return the header that says so."""
    form = {"grant_type": "password", "username": email, "password": password}
    token = (await client.post("/api/v1/auth/token", data=form)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def buyer(client: httpx2.AsyncClient) -> dict[str, str]:
    """Register a customer and sign in."""
    email = f"buyer-{uuid4().hex}@souk.example"
    account = {"email": email, "password": PASSWORD, "name": "Buyer"}
    assert (await client.post("/api/v1/auth/register", json=account)).status_code == 201
    return await signed_in(client, email, PASSWORD)


async def product(client: httpx2.AsyncClient, shop: Shop, units: int) -> str:
    """Put a product with so many units on the shelf."""
    admin = await signed_in(client, shop.admin_email, shop.admin_password)
    price = {"amount_minor": 1999, "currency": "USD"}
    new = {"sku": f"R-{uuid4().hex}", "name": "Lantern", "category": "light", "price": price}
    made = (await client.post("/api/v1/products", json=new, headers=admin)).json()
    movement = {"delta": units, "reason": "received"}
    assert (await client.post(f"/api/v1/products/{made['id']}/stock", json=movement, headers=admin)).is_success
    return made["id"]


def wanted(product_id: str) -> dict[str, object]:
    """The body of an order of one unit."""
    items = [{"product_id": product_id, "quantity": 1}]
    return {"items": items, "address": ADDRESS, "payment_method": "tok_visa"}


def audited(shop: Shop) -> str:
    """What the audit says."""
    pairs = [f"--url={name}={url}" for name, url in shop.services.items()]
    command = (sys.executable, "-m", "drills.audit", "--secrets", str(shop.secrets / "audit"), *pairs)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


async def test_one_key_fifty_times_at_once_is_one_order_one_capture_one_answer(replicated: Shop) -> None:
    limits = httpx2.Limits(max_connections=60)
    async with httpx2.AsyncClient(base_url=replicated.origin, timeout=60, limits=limits) as client:
        product_id = await product(client, replicated, 10)
        headers = await buyer(client) | {"Idempotency-Key": "fifty times"}
        place = [client.post("/api/v1/orders", json=wanted(product_id), headers=headers) for _ in range(50)]
        answers = await asyncio.gather(*place)
        assert {answer.status_code for answer in answers} <= {201, 409}
        refused = [answer for answer in answers if answer.status_code == 409]
        assert {answer.json()["type"] for answer in refused} <= {"/problems/request-in-progress"}
        assert all("retry-after" in answer.headers for answer in refused)
        again = await client.post("/api/v1/orders", json=wanted(product_id), headers=headers)
        assert {answer.content for answer in answers if answer.status_code == 201} == {again.content}
        assert sum("idempotency-replayed" not in answer.headers for answer in (*answers, again)) == 1 + len(refused)
        assert len((await client.get("/api/v1/orders", headers=headers)).json()["items"]) == 1
        (payment,) = (await client.get("/api/v1/payments", headers=headers)).json()["items"]
        assert payment["captured"] == {"amount_minor": 1999, "currency": "USD"}
        assert (await client.get(f"/api/v1/products/{product_id}")).json()["available"] == 9
    assert audited(replicated).endswith("audit: clean\n")


async def test_five_hundred_checkouts_of_a_hundred_units_are_a_hundred_orders(replicated: Shop) -> None:
    limits = httpx2.Limits(max_connections=64)
    async with httpx2.AsyncClient(base_url=replicated.origin, timeout=120, limits=limits) as client:
        product_id = await product(client, replicated, UNITS)
        buyers = [await buyer(client) for _ in range(BUYERS)]
        place = [
            client.post("/api/v1/orders", json=wanted(product_id), headers=headers | {"Idempotency-Key": f"{number}"})
            for headers in buyers
            for number in range(CHECKOUTS_OF_EACH)
        ]
        answers = await asyncio.gather(*place)
        assert Counter(answer.status_code for answer in answers) == {201: UNITS, 409: len(place) - UNITS}
        assert (await client.get(f"/api/v1/products/{product_id}")).json()["available"] == 0
    assert audited(replicated).endswith("audit: clean\n")
