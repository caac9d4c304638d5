"""A product service on a real database, and what its tests ask of it again and again."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest

from chassis.app import Service
from chassis.testing import UserTokens, client, credential, settings_for
from services.product.app import create_app
from services.product.settings import ProductSettings
from tests.databases import Databases

Json = dict[str, Any]
TOKENS = UserTokens()
ADMIN = TOKENS.headers(uuid4(), "admin")
CUSTOMER = TOKENS.headers(uuid4())
ORDER = {"Authorization": credential("order").authorization("product")}
AUDIT = {"Authorization": credential("audit").authorization("product")}


def unique(prefix: str = "x") -> str:
    """A word that no other test uses."""
    return f"{prefix}{uuid4().hex}"


def make_service(url: str, **overrides: Any) -> Service:
    """A product service: a replica of any other on the same database."""
    return create_app(settings_for(ProductSettings, "product", url, **overrides), {"user": TOKENS.transport()})


class Shop:
    """One replica, as its callers see it, and a category that is this test's alone."""

    def __init__(self, service: Service, category: str) -> None:
        self.service = service
        self.category = category
        self.wire = client(service)

    async def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send one request."""
        return await self.wire.request(method, path, **options)

    async def read(self, path: str, **params: Any) -> Any:
        """Read what must be there."""
        answer = await self.send("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def body(self, **members: Any) -> Json:
        """The smallest body that creates a product."""
        return {
            "sku": unique(),
            "name": "Kettle",
            "category": self.category,
            "price": {"amount_minor": 1999, "currency": "USD"},
            **members,
        }

    async def product(self, on_hand: int = 0, **members: Any) -> Json:
        """Create a product, with stock."""
        answer = await self.send("POST", "/api/v1/products", json=self.body(**members), headers=ADMIN)
        assert answer.status_code == 201, answer.text
        product: Json = answer.json()
        if on_hand:
            assert (await self.move(product["id"], on_hand)).status_code == 200
        return product

    async def move(self, product_id: str, delta: int, reason: str = "received") -> httpx2.Response:
        """Move stock."""
        body = {"delta": delta, "reason": reason}
        return await self.send("POST", f"/api/v1/products/{product_id}/stock", json=body, headers=ADMIN)

    async def change(self, product_id: str, headers: dict[str, str] | None = None, **change: Any) -> httpx2.Response:
        """Change a product."""
        path = f"/api/v1/products/{product_id}"
        return await self.send("PATCH", path, json=change, headers=ADMIN | (headers or {}))

    async def retire(self, product_id: str, **headers: str) -> httpx2.Response:
        """Retire a product."""
        return await self.send("DELETE", f"/api/v1/products/{product_id}", headers=ADMIN | headers)

    async def bring_in(self, content: Any, content_type: str = "application/x-ndjson") -> httpx2.Response:
        """Import a body."""
        headers = ADMIN | {"Content-Type": content_type}
        return await self.send("POST", "/api/v1/products/import", content=content, headers=headers)

    async def reserve(self, order_id: UUID, *items: tuple[str, int]) -> httpx2.Response:
        """Reserve units for an order."""
        body = {"items": [{"product_id": product_id, "quantity": quantity} for product_id, quantity in items]}
        return await self.send("PUT", f"/internal/v1/reservations/{order_id}", json=body, headers=ORDER)

    async def commit(self, order_id: UUID) -> httpx2.Response:
        """Commit an order's reservation."""
        return await self.send("POST", f"/internal/v1/reservations/{order_id}/commit", headers=ORDER)

    async def release(self, order_id: UUID) -> httpx2.Response:
        """Release an order's reservation."""
        return await self.send("DELETE", f"/internal/v1/reservations/{order_id}", headers=ORDER)

    async def stock(self, product_id: str) -> tuple[int, int]:
        """Units on hand and reserved, as the table has them."""
        row = await self.service.database.fetchrow(
            "SELECT on_hand, reserved FROM stock WHERE product_id = $1", UUID(product_id)
        )
        assert row is not None
        return row[0], row[1]


def ndjson(*lines: Json | str | bytes) -> bytes:
    """Lines of NDJSON; text goes in as it is."""
    return b"\n".join(
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else orjson.dumps(line)
        for line in (*lines, "")
    )


@pytest.fixture(scope="session")
def shared_url(postgres: Databases) -> Iterator[str]:
    """A database for all tests of a worker that only touch what they made."""
    url = postgres.clone("product")
    yield url
    postgres.drop(url)


@pytest.fixture
async def shop(shared_url: str) -> AsyncIterator[Shop]:
    """A replica on the shared database."""
    service = make_service(shared_url)
    yield Shop(service, unique("category-"))
    await service.database.close()


@pytest.fixture
async def own_shop(database_url: Callable[[str], str]) -> AsyncIterator[Callable[..., Shop]]:
    """Replicas on a database of this test's own."""
    url = database_url("product")
    category = unique("category-")
    made: list[Service] = []

    def make(**overrides: Any) -> Shop:
        made.append(make_service(url, **overrides))
        return Shop(made[-1], category)

    yield make
    for service in made:
        await service.database.close()
