"""The platform put together in one process, and the people who use it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
from argon2 import PasswordHasher

from chassis.app import Service
from chassis.testing import client, credential, in_process, settings_for
from drills.audit import Violation, check, read
from local.edge import Edge
from services.order.app import create_app as create_order
from services.order.saga import Saga
from services.order.settings import OrderSettings
from services.payment.app import create_app as create_payment
from services.payment.settings import PaymentSettings
from services.product.app import create_app as create_product
from services.product.settings import ProductSettings
from services.user.app import create_app as create_user
from services.user.settings import UserSettings
from tests.platform.faults import Faults, FaultyTransport

Json = dict[str, Any]

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KEY_ENCRYPTION_KEY = "c291ayBwbGF0Zm9ybSB0ZXN0cywgMzIgYnl0ZXMhISE="
PASSWORD = "correct horse battery staple"
ADDRESS: Json = {
    "name": "Ada Example",
    "line1": "1 Market Square",
    "city": "Springfield",
    "postal_code": "12345",
    "country": "US",
}
RECOVERY_BUDGET_S = 5.0
MANY_CHECKOUTS = {"max_checkouts": 64}
"""For tests that send fifty at once, and ask what becomes of each."""


class Shopper:
    """A user who is signed in. Each call may name the order replica that answers it."""

    def __init__(self, platform: "Platform", user_id: UUID, headers: Mapping[str, str]) -> None:
        self._platform = platform
        self.user_id = user_id
        self.headers = dict(headers)

    async def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        replica: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Call the API through the edge."""
        content = None if body is None else orjson.dumps(body)
        media_type = {} if body is None else {"Content-Type": "application/json"}
        return await self._platform.client(replica).request(
            method, path, content=content, headers={**self.headers, **media_type, **(headers or {})}
        )

    async def get(self, path: str, *, replica: int = 0) -> Json:
        """Read what has to be there."""
        answer = await self.call("GET", path, replica=replica)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, *items: tuple[str, int], method: str = "tok_visa", replica: int = 0, **more: Any) -> Any:
        """Order items, or the cart; `key` and `headers` may be given."""
        key = more.pop("key", None) or f"key-{uuid4().hex}"
        headers = {"Idempotency-Key": key, **more.pop("headers", {})}
        body = order_body(*items, method=method, **more)
        return await self.call("POST", "/api/v1/orders", body, replica=replica, headers=headers)

    async def bought(self, *items: tuple[str, int], **more: Any) -> Json:
        """Order what has to be confirmed, and return the order."""
        answer = await self.order(*items, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def read_order(self, order_id: str, *, replica: int = 0) -> Json:
        """Read an order."""
        return await self.get(f"/api/v1/orders/{order_id}", replica=replica)

    async def cancel(self, order_id: str, *, replica: int = 0) -> httpx2.Response:
        """Cancel an order."""
        return await self.call("POST", f"/api/v1/orders/{order_id}/cancel", replica=replica)

    async def move(self, order_id: str, step: str, *, replica: int = 0) -> httpx2.Response:
        """Ship or deliver an order, as an admin."""
        return await self.call("POST", f"/api/v1/orders/{order_id}/{step}", replica=replica)

    async def put_in_cart(self, product_id: str, quantity: int) -> None:
        """Set how many of a product the cart holds."""
        answer = await self.call("PUT", f"/api/v1/cart/items/{product_id}", {"quantity": quantity})
        assert answer.status_code == 200, answer.text

    async def cart(self) -> list[tuple[str, int]]:
        """What the cart holds."""
        return [(item["product_id"], item["quantity"]) for item in (await self.get("/api/v1/cart"))["items"]]

    async def orders(self) -> list[Json]:
        """All the caller's orders, up to a hundred."""
        return (await self.get("/api/v1/orders?limit=100"))["items"]

    async def payment(self, order_id: str) -> Json | None:
        """The payment of an order, where there is one."""
        found = (await self.get(f"/api/v1/payments?order_id={order_id}"))["items"]
        return found[0] if found else None

    async def refund(self, payment_id: str, amount_minor: int | None = None) -> httpx2.Response:
        """Refund a payment, as an admin."""
        amount = {} if amount_minor is None else {"amount_minor": amount_minor}
        return await self.call("POST", f"/api/v1/payments/{payment_id}/refund", {"reason": "returned", **amount})


class Platform:
    """Four applications on the databases at `urls`, wired to each other, with faults on every way between them.

    Of the order service there may be several replicas, all on one database. Workers run only after `start()`; without
    it a test calls their rounds itself.
    """

    def __init__(self, urls: Mapping[str, str], *, replicas: int = 1, **order_settings: Any) -> None:
        self.urls = dict(urls)
        self.faults = Faults()
        self._order_settings = order_settings
        self._ways: dict[str, httpx2.AsyncBaseTransport] = {}
        self._transports = {
            name: FaultyTransport(name, self._ways, self.faults) for name in ("user", "product", "payment", "order")
        }
        user = settings_for(UserSettings, "user", urls["user"], key_encryption_key=KEY_ENCRYPTION_KEY)
        product = settings_for(ProductSettings, "product", urls["product"])
        payment = settings_for(
            PaymentSettings, "payment", urls["payment"], simulator_slow_s=0, simulator_lost_answer_s=0
        )
        self.user = create_user(user, self._transports, hasher=CHEAP)
        self.product = create_product(product, self._transports)
        self.payment = create_payment(payment, self._transports)
        self.orders: list[Service] = []
        self._clients: list[httpx2.AsyncClient] = []
        self._started: list[Service] = []
        for service in (self.user, self.product, self.payment):
            self._connect(service)
        for _ in range(replicas):
            self.add_replica()

    def _connect(self, service: Service) -> None:
        self._ways.setdefault(service.service_name, in_process(service))
        self.faults.crash_points.watch_statements(service.service_name, service.database)

    def add_replica(self) -> int:
        """Start another replica of the order service, as a restart does, and return its number."""
        service = create_order(
            settings_for(OrderSettings, "order", self.urls["order"], **MANY_CHECKOUTS | self._order_settings),
            self._transports,
        )
        self._connect(service)
        self.orders.append(service)
        self._clients.append(client(Edge(self.services | {"order": service})))
        return len(self.orders) - 1

    @property
    def services(self) -> dict[str, Service]:
        """The applications by name, with the first order replica."""
        named = {"user": self.user, "product": self.product, "payment": self.payment}
        return named | {"order": self.orders[0]} if self.orders else named

    def client(self, replica: int = 0) -> httpx2.AsyncClient:
        """A client of the edge that has one order replica behind it."""
        return self._clients[replica]

    def saga(self, replica: int) -> Saga:
        """The saga as this replica drives it."""
        return self.orders[replica].state.saga

    async def start(self) -> None:
        """Start the workers of all services, and wait until all are ready."""
        for service in (self.user, self.product, self.payment, *self.orders):
            self._started.append(service)
            await service.start()
        for service in self._started:
            await service.started.wait()

    async def aclose(self) -> None:
        """Stop what was started, and close every connection."""
        for open_client in self._clients:
            await open_client.aclose()
        for service in (self.user, self.product, self.payment, *self.orders):
            if service in self._started:
                await service.stop()
            else:
                await service.database.close()

    async def probe(self, service: str, path: str) -> httpx2.Response:
        """Ask a service itself, past the edge."""
        async with client(self.services[service]) as open_client:
            return await open_client.get(path)

    async def customer(self) -> Shopper:
        """Register a customer, who signs in."""
        email = f"{uuid4().hex}@example.com"
        return await self._signed_in(email, await self._registered(email))

    async def admin(self) -> Shopper:
        """Make an admin, who signs in."""
        email = f"{uuid4().hex}@example.com"
        user_id = await self._registered(email)
        await self.user.database.execute("UPDATE users SET role = 'admin' WHERE id = $1", user_id)
        return await self._signed_in(email, user_id)

    async def _registered(self, email: str) -> UUID:
        body = {"email": email, "password": PASSWORD, "name": "Ada Example"}
        answer = await self.client().post("/api/v1/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])

    async def _signed_in(self, email: str, user_id: UUID) -> Shopper:
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        answer = await self.client().post("/api/v1/auth/token", data=form)
        assert answer.status_code == 200, answer.text
        return Shopper(self, user_id, {"Authorization": f"Bearer {answer.json()['access_token']}"})

    async def products(self, admin: Shopper, *lines: Json) -> list[str]:
        """Import products and return their ids, in the order of the lines."""
        named = [{"sku": f"SKU-{uuid4().hex}", "name": "Enamel kettle", "category": "kitchen"} | line for line in lines]
        answer = await self.client().post(
            "/api/v1/products/import",
            content=b"".join(orjson.dumps(line) + b"\n" for line in named),
            headers=admin.headers | {"Content-Type": "application/x-ndjson"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"created": len(lines), "updated": 0, "rejected": []}
        rows = await self.product.database.fetch("SELECT sku, id FROM products")
        ids = {row["sku"]: str(row["id"]) for row in rows}
        return [ids[line["sku"]] for line in named]

    async def product_of(self, admin: Shopper, *, stock: int, price_minor: int = 1999) -> str:
        """Import one product with so many units."""
        return (await self.products(admin, {"price_minor": price_minor, "currency": "USD", "on_hand": stock}))[0]

    async def available(self, product_id: str) -> int:
        """How many units can be bought, as the catalogue says."""
        answer = await self.client().get(f"/api/v1/products/{product_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()["available"]

    async def recover(self, replica: int) -> None:
        """Let the leases of all unfinished orders run out, as they do when their replica is lost, and this replica take
        the orders up, in as many rounds as it takes: one takes up RECOVER_MOST of them.
        """
        await self.orders[replica].database.execute(
            "UPDATE orders SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL"
        )
        while await self.saga(replica).recover(RECOVERY_BUDGET_S):
            pass

    async def violations(self) -> list[Violation]:
        """What the audit finds."""
        return await audit(self.services)


async def audit(services: Mapping[str, Service]) -> list[Violation]:
    """Run the audit over these applications."""
    urls = {name: f"http://{name}.souk.test" for name in services}
    mounts = {urls[name]: in_process(service) for name, service in services.items()}
    async with httpx2.AsyncClient(mounts=mounts) as auditor:
        return check(await read(urls, credential("audit"), auditor), datetime.now(UTC))


def order_body(*items: tuple[str, int], method: str = "tok_visa", **more: Any) -> Json:
    """The body of an order of items, or of the cart."""
    wanted = {"items": [{"product_id": product_id, "quantity": n} for product_id, n in items]} if items else {}
    address = {} if "address_id" in more else {"address": ADDRESS}
    return {**wanted, **address, "payment_method": method, **more}
