"""How the tests call the service, break its provider, and compare its books with the provider's."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx2

from chassis.auth import Role
from chassis.database import Database
from chassis.telemetry import Telemetry
from chassis.testing import UserTokens, credential
from services.payment.charges import Charges
from services.payment.metrics import PaymentMetrics
from services.payment.provider import PaymentProvider
from services.payment.refunds import Refunds

Json = dict[str, Any]
Result = TypeVar("Result")
SERVICES = ("user", "order", "audit")


def wanted(
    amount_minor: int = 1000, *, method: str = "tok_visa", user_id: UUID | None = None, currency: str = "USD"
) -> Json:
    """The body that the order service sends."""
    amount = {"amount_minor": amount_minor, "currency": currency}
    return {"user_id": str(user_id or uuid4()), "amount": amount, "payment_method": method}


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of an answer that is a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].rpartition("/")[2]


def fields(answer: httpx2.Response) -> list[str]:
    """The fields that an answer finds fault with."""
    assert problem(answer) == (422, "invalid-request")
    return [error["field"] for error in answer.json()["errors"]]


class Callers:
    """The HTTP interface, as each of its callers uses it."""

    def __init__(self, http: httpx2.AsyncClient, tokens: UserTokens) -> None:
        self.http = http
        self._tokens = tokens
        self._services = {name: {"Authorization": credential(name).authorization("payment")} for name in SERVICES}

    async def call(self, caller: str, method: str, path: str, body: Json | None = None) -> httpx2.Response:
        """Call as a service."""
        return await self.http.request(method, f"/internal/v1{path}", json=body, headers=self._services[caller])

    async def order(
        self, method: str, order_id: UUID | str, step: str = "", body: Json | None = None
    ) -> httpx2.Response:
        """Call as the order service, about the payment of an order."""
        return await self.call("order", method, f"/payments/{order_id}{step}", body)

    async def get(self, path: str, user_id: UUID, role: Role = "customer", **params: Any) -> httpx2.Response:
        """Read as a user."""
        headers = self._tokens.headers(user_id, role)
        return await self.http.get(f"/api/v1/payments{path}", params=params, headers=headers)

    async def refund(
        self, payment_id: str, body: Json, *, admin: UUID | None = None, key: str | None = None, role: Role = "admin"
    ) -> httpx2.Response:
        """Refund as an admin."""
        headers = self._tokens.headers(admin or uuid4(), role)
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.http.post(f"/api/v1/payments/{payment_id}/refund", json=body, headers=headers)

    async def authorised(
        self, amount_minor: int = 1000, *, method: str = "tok_visa", user_id: UUID | None = None
    ) -> Json:
        """A payment that the provider has answered."""
        body = wanted(amount_minor, method=method, user_id=user_id)
        answer = await self.order("PUT", uuid4(), body=body)
        assert answer.status_code == 200
        return answer.json()

    async def captured(self, amount_minor: int = 1000, *, user_id: UUID | None = None) -> Json:
        """A payment that was authorised and captured."""
        payment = await self.authorised(amount_minor, user_id=user_id)
        answer = await self.order("POST", payment["order_id"], "/capture")
        assert answer.status_code == 200
        return answer.json()


@dataclass(frozen=True)
class Flows:
    """Charges and refunds over a provider of the test's own."""

    charges: Charges
    refunds: Refunds

    async def authorise(self, order_id: UUID, amount_minor: int = 1000, method: str = "tok_visa") -> str:
        return await self.charges.authorise(order_id, order_id, amount_minor, "USD", method)


def flows(database: Database, provider: PaymentProvider, *, lease_s: float = 60.0) -> Flows:
    """As the application wires them."""
    metrics = PaymentMetrics(Telemetry("payment"))
    return Flows(Charges(database, provider, metrics), Refunds(database, provider, metrics, lease_s=lease_s))


class Crash(Exception):
    """The process ends here, as far as a call can tell."""


class Intercepted:
    """A provider between whose calls and answers a test can act: `before` and `after` get the operation's name."""

    def __init__(self, provider: PaymentProvider) -> None:
        self.provider = provider
        self.payment_methods = provider.payment_methods
        self.calls: list[str] = []

    async def before(self, operation: str, /) -> None:
        """Nothing has reached the provider yet."""

    async def after(self, operation: str, /) -> None:
        """The provider has done it, and nobody here knows."""

    async def _call(self, operation: str, call: Callable[[], Awaitable[Result]]) -> Result:
        await self.before(operation)
        self.calls.append(operation)
        try:
            return await call()
        finally:
            await self.after(operation)

    async def authorise(self, key: UUID, amount_minor: int, currency: str, payment_method: str) -> str:
        return await self._call(
            "authorise", lambda: self.provider.authorise(key, amount_minor, currency, payment_method)
        )

    async def capture(self, key: UUID) -> str:
        return await self._call("capture", lambda: self.provider.capture(key))

    async def void(self, key: UUID) -> None:
        await self._call("void", lambda: self.provider.void(key))

    async def refund(self, key: UUID, charge_key: UUID, amount_minor: int) -> None:
        await self._call("refund", lambda: self.provider.refund(key, charge_key, amount_minor))


class Crashing(Intercepted):
    """Ends the caller at one point of one operation, `before` or `after`."""

    def __init__(self, provider: PaymentProvider, operation: str, point: str) -> None:
        super().__init__(provider)
        self._where = (operation, point)

    async def before(self, operation: str) -> None:
        if self._where == (operation, "before"):
            raise Crash

    async def after(self, operation: str) -> None:
        if self._where == (operation, "after"):
            raise Crash


class Holding(Intercepted):
    """Holds callers at one point of one operation until `release` is set; `reached` tells that all are there."""

    def __init__(self, provider: PaymentProvider, operation: str, point: str, callers: int = 1) -> None:
        super().__init__(provider)
        self._where = (operation, point)
        self._awaited = callers
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    async def _hold(self, operation: str, point: str) -> None:
        if self._where == (operation, point):
            self._awaited -= 1
            if self._awaited == 0:
                self.reached.set()
            await self.release.wait()

    async def before(self, operation: str) -> None:
        await self._hold(operation, "before")

    async def after(self, operation: str) -> None:
        await self._hold(operation, "after")


@dataclass(frozen=True)
class Books:
    """What is written down of one order's payment, here and at the provider."""

    status: str
    captured_minor: int
    refunded_minor: int
    pending_refunds: int
    movements: dict[UUID, dict[str, int]]
    charge: tuple[str, int, int] | None
    refunds_at_provider: int

    def agree(self) -> None:
        """Fail unless ledger, payment and provider tell the same."""
        totals = {"provider_receivable": 0, "sales_revenue": 0, "sales_returns": 0}
        for movement in self.movements.values():
            assert len(movement) == 2
            assert sum(movement.values()) == 0
            for account, amount_minor in movement.items():
                totals[account] += amount_minor
        assert totals["sales_revenue"] == -self.captured_minor
        assert totals["sales_returns"] == self.refunded_minor
        assert totals["provider_receivable"] == self.captured_minor - self.refunded_minor
        assert self.pending_refunds == 0
        at_provider = "captured" if self.status in {"partially_refunded", "refunded"} else self.status
        assert self.charge == (at_provider, self.captured_minor, self.refunded_minor)
        assert self.refunds_at_provider == self.refunded_minor


async def books(database: Database, order_id: UUID) -> Books:
    """Everything that is written down of one order's payment."""
    payment: Any = await database.fetchrow("SELECT * FROM payments WHERE order_id = $1", order_id)
    entries = await database.fetch("SELECT * FROM ledger_entries WHERE payment_id = $1", payment["id"])
    movements: dict[UUID, dict[str, int]] = {}
    for entry in entries:
        movements.setdefault(entry["movement_id"], {})[entry["account"]] = entry["amount_minor"]
    charge = await database.fetchrow(
        "SELECT status, captured_minor, refunded_minor FROM simulator_charges WHERE key = $1", order_id
    )
    return Books(
        status=payment["status"],
        captured_minor=payment["captured_minor"],
        refunded_minor=payment["refunded_minor"],
        pending_refunds=await database.fetchval(
            "SELECT count(*) FROM refunds WHERE payment_id = $1 AND status = 'pending'", payment["id"]
        ),
        movements=movements,
        charge=None if charge is None else tuple(charge),
        refunds_at_provider=await database.fetchval(
            "SELECT coalesce(sum(amount_minor), 0)::bigint FROM simulator_refunds WHERE charge_key = $1", order_id
        ),
    )
