"""Placing an order: price it, store it with its idempotency key, drive its saga, answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chassis.clients import PeerUnavailable
from chassis.context import context
from chassis.crash_points import crash_point
from chassis.database import Database
from chassis.idempotency import StoredAnswer
from chassis.problems import IdempotencyKeyReused, InvalidRequest, Problem, RequestInProgress
from chassis.schemas import MAX_AMOUNT_MINOR, facts
from services.order import repository
from services.order.answers import answer_to
from services.order.clients import ProductClient, Quote, UserClient
from services.order.domain import Line, Order, Status, total_minor
from services.order.repository import Orders
from services.order.saga import Saga, now
from services.order.schemas import NewOrder


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is answered, and whether it was answered before."""

    answer: StoredAnswer
    replayed: bool = False


class Checkout:
    """Places orders. What is refused before an order is stored leaves the idempotency key free."""

    def __init__(
        self,
        database: Database,
        orders: Orders,
        saga: Saga,
        products: ProductClient,
        users: UserClient,
        *,
        budget_s: float,
        currency: str,
    ) -> None:
        self._database = database
        self._orders = orders
        self._saga = saga
        self._products = products
        self._users = users
        self._budget_s = budget_s
        self._currency = currency

    async def place(self, user_id: UUID, wanted: NewOrder, key: str, fingerprint: bytes) -> Outcome:
        """Order what is wanted, once for one key however often and wherever it is asked."""
        until = asyncio.get_running_loop().time() + self._budget_s
        context().deadline = until
        try:
            order = await self._store(user_id, wanted, key, fingerprint)
        except Problem:
            # The key may have been answered while the order could still be made: then that answer counts.
            outcome = await self._answered(user_id, key, fingerprint)
            if outcome is None:
                raise
            return outcome
        if order is None:
            outcome = await self._answered(user_id, key, fingerprint)
            if outcome is None:  # it ran out of its 24 hours in between
                raise RequestInProgress
            return outcome
        return Outcome(await self._drive(order, until))

    async def _store(self, user_id: UUID, wanted: NewOrder, key: str, fingerprint: bytes) -> Order | None:
        """Store the pending order; none where the key is taken."""
        if wanted.items is None:
            items = [(item.product_id, item.quantity) for item in await repository.cart(self._database, user_id)]
            if not items:
                raise InvalidRequest.field("items", "the cart is empty")
        else:
            items = [(item.product_id, item.quantity) for item in wanted.items]
        address = await self._address(user_id, wanted)
        lines, currency = priced(items, await self._products.quotes(items), self._currency)
        crash_point("order.place.priced")
        order = await self._orders.place(
            key=key,
            fingerprint=fingerprint,
            user_id=user_id,
            lines=lines,
            currency=currency,
            address=address,
            payment_method=wanted.payment_method,
            from_cart=wanted.items is None,
            traceparent=context().traceparent(),
            at=now(),
        )
        crash_point("order.placed")
        return order

    async def _address(self, user_id: UUID, wanted: NewOrder) -> dict[str, Any]:
        if wanted.address is not None:
            if wanted.address_id is not None:
                raise InvalidRequest.field("address_id", "cannot be given together with address")
            return facts(wanted.address)
        if wanted.address_id is None:
            raise InvalidRequest.field("address", "is needed, or address_id")
        address = await self._users.address(user_id, wanted.address_id)
        if address is None:
            raise InvalidRequest.field("address_id", "is not one of yours")
        return address

    async def _drive(self, order: Order, until: float) -> StoredAnswer:
        try:
            order = await self._saga.advance(order, until)
        except PeerUnavailable:
            await self._orders.defer(order.id)
            crash_point("order.deferred")
            order = await self._orders.get(order.id)
            if order.unfinished:
                return answer_to(order)
        if order.status is Status.CONFIRMED:
            return answer_to(order)
        return await self._orders.answer_of(order.id) or answer_to(order)

    async def _answered(self, user_id: UUID, key: str, fingerprint: bytes) -> Outcome | None:
        """The answer that the key has, or none where it is free.

        Raises IdempotencyKeyReused for another body, RequestInProgress while the first request is at work.
        """
        found = await self._orders.answered(user_id, key)
        if found is None:
            return None
        context().order_id = str(found.order_id)
        if found.fingerprint != fingerprint:
            raise IdempotencyKeyReused
        if found.answer is not None:
            return Outcome(found.answer, replayed=True)
        if not found.deferred:
            raise RequestInProgress
        order = await self._orders.get(found.order_id)
        if order.unfinished:
            return Outcome(answer_to(order), replayed=True)
        # It ended since the key was read.
        return Outcome(await self._orders.answer_of(order.id) or answer_to(order), replayed=True)


def priced(items: Sequence[tuple[UUID, int]], quotes: dict[UUID, Quote], currency: str) -> tuple[tuple[Line, ...], str]:
    """The lines at today's prices, and their currency.

    A product that the catalogue does not have becomes a line without a name or a price: its reservation will be
    refused, and the order is kept as rejected. Raises InvalidRequest for prices in more than one currency, and for a
    total that no payment takes.
    """
    currencies = {quote.currency for quote in quotes.values()}
    if len(currencies) > 1:
        raise InvalidRequest.field("items", f"has prices in {', '.join(sorted(currencies))}; an order has one currency")
    unknown = Quote(sku="", name="", unit_price_minor=0, currency=currency, available=0)
    lines = tuple(
        Line(product_id, quote.sku, quote.name, quantity, quote.unit_price_minor)
        for product_id, quantity in items
        for quote in (quotes.get(product_id, unknown),)
    )
    if total_minor(lines) > MAX_AMOUNT_MINOR:
        raise InvalidRequest.field("items", f"cost more than {MAX_AMOUNT_MINOR} minor units, the most that is taken")
    return lines, next(iter(currencies), currency)
