"""The shop's admin, by the API: what a test needs on the shelves before somebody comes."""

from typing import Any
from uuid import uuid4

import httpx2


class Shopkeeper:
    """The admin of a running shop."""

    def __init__(self, origin: str, email: str, password: str) -> None:
        self._client = httpx2.AsyncClient(base_url=origin, timeout=30, trust_env=False)
        self.email, self.password = email, password

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, method: str, path: str, status: int, **options: Any) -> Any:
        """Make a call that has to be answered with a status, and return what came."""
        form = {"grant_type": "password", "username": self.email, "password": self.password}
        granted = await self._client.post("/api/v1/auth/token", data=form)
        assert granted.status_code == 200, granted.text
        headers = {"Authorization": f"Bearer {granted.json()['access_token']}", **options.pop("headers", {})}
        answer = await self._client.request(method, path, headers=headers, **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def product(self, *, stock: int = 10, price_minor: int = 1999, **members: Any) -> dict[str, Any]:
        """Put a product on the shelves."""
        body = {
            "sku": f"B-{uuid4().hex[:12]}",
            "name": "Copper pan",
            "category": f"browser-{uuid4().hex[:8]}",
            "price": {"amount_minor": price_minor, "currency": "USD"},
            **members,
        }
        made = await self.call("POST", "/api/v1/products", 201, json=body)
        if stock:
            await self.move_stock(made["id"], stock)
        return made

    async def move_stock(self, product_id: str, delta: int) -> None:
        """Move so many units onto the shelves, or off them."""
        reason = "received" if delta > 0 else "damaged"
        path = f"/api/v1/products/{product_id}/stock"
        await self.call("POST", path, 200, json={"delta": delta, "reason": reason})

    async def reprice(self, product_id: str, price_minor: int) -> None:
        """Give a product another price."""
        path = f"/api/v1/products/{product_id}"
        shown = await self._client.get(path)
        price = {"amount_minor": price_minor, "currency": "USD"}
        await self.call("PATCH", path, 200, json={"price": price}, headers={"If-Match": shown.headers["etag"]})

    async def retire(self, product_id: str) -> None:
        """Take a product out of the catalogue."""
        shown = await self._client.get(f"/api/v1/products/{product_id}")
        await self.call("DELETE", f"/api/v1/products/{product_id}", 204, headers={"If-Match": shown.headers["etag"]})

    async def orders_of(self, email: str, password: str) -> list[dict[str, Any]]:
        """The orders of a customer, newest first."""
        form = {"grant_type": "password", "username": email, "password": password}
        granted = await self._client.post("/api/v1/auth/token", data=form)
        headers = {"Authorization": f"Bearer {granted.json()['access_token']}"}
        answer = await self._client.get("/api/v1/orders", headers=headers, params={"limit": 100})
        return answer.json()["items"]

    async def on_hand(self, product_id: str) -> int:
        """How many units of a product can be bought."""
        return (await self._client.get(f"/api/v1/products/{product_id}")).json()["available"]
