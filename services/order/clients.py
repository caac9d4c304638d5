"""The services that an order needs, each call with the meaning that it has here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chassis.balancing import CallPolicy
from chassis.clients import Peer, PeerRefused

AGAIN = CallPolicy(idempotent=True, attempt_timeout_s=1.5)
"""All calls may be sent twice, by nature or by the order's id. Two attempts fit into the 3 s of a call."""
AUTHORISATION = CallPolicy(idempotent=True, attempt_timeout_s=2.5, timed=False)
"""A provider may take its 2 s, on whichever replica: its time says nothing of the endpoint."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a product costs now, and how many can be had."""

    sku: str
    name: str
    unit_price_minor: int
    currency: str
    available: int


class StockRefused(Exception):
    """The product service cannot give the units: `items` are `{product_id, requested, available}` of those that are
    short.
    """

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__("insufficient stock")
        self.items = items


class PaymentRefused(Exception):
    """The provider declined, for good."""

    def __init__(self, decline_code: str) -> None:
        super().__init__(decline_code)
        self.decline_code = decline_code


def _wanted(items: Sequence[tuple[UUID, int]]) -> dict[str, Any]:
    return {"items": [{"product_id": product_id, "quantity": quantity} for product_id, quantity in items]}


class ProductClient:
    """Prices and stock. All calls are idempotent: by nature, or by the order's id."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def quotes(self, items: Sequence[tuple[UUID, int]]) -> dict[UUID, Quote]:
        """Quotes of the products that the catalogue has, by id."""
        answer = await self._peer.call("POST", "/internal/v1/quotes", _wanted(items), policy=AGAIN)
        return {
            UUID(item["product_id"]): Quote(
                item["sku"],
                item["name"],
                item["unit_price"]["amount_minor"],
                item["unit_price"]["currency"],
                item["available"],
            )
            for item in answer["items"]
        }

    async def reserve(self, order_id: UUID, items: Sequence[tuple[UUID, int]]) -> None:
        """Hold all the units for the order, or none of them; raises StockRefused."""
        await self._stock("PUT", f"/internal/v1/reservations/{order_id}", _wanted(items))

    async def commit(self, order_id: UUID) -> None:
        """Take the units that are held out of the stock for good; raises StockRefused when they are lost."""
        await self._stock("POST", f"/internal/v1/reservations/{order_id}/commit")

    async def release(self, order_id: UUID) -> None:
        """Give the units back, whether held or committed, and refuse any later reservation for this order."""
        await self._peer.call("DELETE", f"/internal/v1/reservations/{order_id}", policy=AGAIN)

    async def _stock(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        try:
            await self._peer.call(method, path, body, policy=AGAIN)
        except PeerRefused as refused:
            if refused.code == "insufficient-stock":
                raise StockRefused(refused.document["items"]) from None
            if refused.code == "illegal-transition":
                # Released by another replica that takes this order back: who reads the order again sees why.
                raise StockRefused([]) from None
            raise


class PaymentClient:
    """The payment of an order. All calls are idempotent by the order's id."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def authorise(
        self, order_id: UUID, user_id: UUID, amount_minor: int, currency: str, payment_method: str
    ) -> UUID:
        """Have the provider set the amount aside and return the payment's id; raises PaymentRefused."""
        answer = await self._peer.call(
            "PUT",
            f"/internal/v1/payments/{order_id}",
            {
                "user_id": user_id,
                "amount": {"amount_minor": amount_minor, "currency": currency},
                "payment_method": payment_method,
            },
            policy=AUTHORISATION,
        )
        match answer["status"]:
            case "declined":
                raise PaymentRefused(answer["decline_code"])
            case "voided":
                # By another replica that takes this order back.
                raise PaymentRefused("declined")
            case _:
                return UUID(answer["id"])

    async def capture(self, order_id: UUID) -> None:
        """Take the money that was authorised; raises PaymentRefused when it was voided."""
        try:
            await self._peer.call("POST", f"/internal/v1/payments/{order_id}/capture", policy=AGAIN)
        except PeerRefused as refused:
            if refused.code != "illegal-transition":
                raise
            raise PaymentRefused("declined") from None

    async def take_back(self, order_id: UUID, reason: str) -> None:
        """Void what was authorised, or refund what was captured, and refuse any later payment for this order."""
        try:
            await self._peer.call("POST", f"/internal/v1/payments/{order_id}/void", policy=AGAIN)
        except PeerRefused as refused:
            if refused.code != "illegal-transition":
                raise
            refund = f"/internal/v1/payments/{order_id}/refund"
            await self._peer.call("POST", refund, {"reason": reason}, policy=AGAIN)


class UserClient:
    """The address books."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def address(self, user_id: UUID, address_id: UUID) -> dict[str, Any] | None:
        """The address, or none where the user has no such one."""
        try:
            path = f"/internal/v1/users/{user_id}/addresses/{address_id}"
            return await self._peer.call("GET", path, policy=AGAIN)
        except PeerRefused as refused:
            if refused.status == 404:
                return None
            raise
