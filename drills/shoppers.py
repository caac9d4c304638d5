"""Shoppers: whole journeys through the storefront API, from registering to cancelling, and the keeper of the shop.

A shopper does what a good client does. A request that came to nothing is repeated, a checkout always with its key; an
order that is pending is read until it is not. Who is interrupted by the end of the drill pursues what is open to its
end, so that afterwards there is an outcome for everything.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID, uuid4

from drills.client import Answer, Client
from drills.oracle import Checkout, Ledger, Told

ADDRESS = {"name": "Ada", "line1": "12 St James Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}
PASSWORD = "a shopper of the drills"  # noqa: S105 - of accounts that live for a minute
METHODS = {
    "tok_visa": 70,
    "tok_mastercard": 10,
    "tok_declined": 5,
    "tok_insufficient_funds": 4,
    "tok_expired_card": 4,
    "tok_slow": 3,
    "tok_timeout": 4,
}
"""Payment methods and how often each is taken: mostly those that approve, each of the others now and then."""
CANCELLED_SHARE = 0.15
PAUSE_S = 0.2
PAUSE_MOST_S = 1.0
FINAL = frozenset({"confirmed", "shipped", "delivered", "rejected", "cancelled"})
PURCHASES_OF_AN_ACCOUNT = 20
"""Then a shopper comes back as somebody else: signing in costs more than shopping."""


class Unresolved(Exception):
    """A shopper had to stop before something came to an end."""


@dataclass(slots=True)
class Floor:
    """What all shoppers of a drill share."""

    client: Client
    seed: int
    run: str = field(default_factory=lambda: uuid4().hex[:12])
    """Told apart from every other, since a cluster still has the customers of the drills before."""
    ledger: Ledger = field(default_factory=Ledger)
    product_ids: list[str] = field(default_factory=list[str])
    methods: dict[str, int] = field(default_factory=lambda: dict(METHODS))
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """From then on nobody begins anything."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """From then on nobody repeats anything either."""
    unresolved: list[str] = field(default_factory=list[str])
    for_keeper: deque[tuple[Checkout, str, int]] = field(default_factory=deque[tuple[Checkout, str, int]])
    """What was sold and its buyer will not cancel, with its payment's id and amount in minor units."""
    repeats_by_itself: bool = False
    """Whether the network may deliver one request twice: then a refresh token may be used up by a single use."""

    async def insist(self, ask: Callable[[], Awaitable[Answer]], what: str) -> Answer:
        """Repeat a request until it comes to something; raises Unresolved when the floor has closed, or at an answer
        that may not be: nothing can be concluded from it.
        """
        pause_s = PAUSE_S
        while True:
            answer = await ask()
            if answer.wrong:
                raise Unresolved(what)
            if not answer.for_now:
                return answer
            if self.closed.is_set():
                self.unresolved.append(f"{what}: {answer.status or 'no answer'}")
                raise Unresolved(what)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, PAUSE_MOST_S)


class Shopper:
    """One person who shops until the floor closes."""

    def __init__(self, floor: Floor, number: int) -> None:
        self._floor = floor
        self._client = floor.client
        self._number = number
        self._random = Random(f"{floor.seed}-{number}")  # noqa: S311 - so that a drill can be repeated
        self._accounts = 0
        self.user_id = ""
        self._headers: dict[str, str] = {}
        self.refresh_token = ""

    @property
    def headers(self) -> dict[str, str]:
        """The shopper's `Authorization`."""
        return self._headers

    async def shop(self) -> None:
        """Come, buy, go, and come again."""
        try:
            while not self._floor.closing.is_set():
                await self.sign_in()
                for _ in range(PURCHASES_OF_AN_ACCOUNT):
                    if self._floor.closing.is_set():
                        break
                    await self._visit()
        except Unresolved:
            pass  # it is written down

    async def sign_in(self) -> None:
        """Register as somebody new and sign in; raises Unresolved."""
        self._accounts += 1
        email = f"shopper-{self._floor.run}-{self._number}-{self._accounts}@souk.example"
        account = {"email": email, "password": PASSWORD, "name": f"Shopper {self._number}"}
        # A repetition of one whose answer was lost finds the e-mail taken: by this very account.
        await self._floor.insist(
            lambda: self._client.call("POST", "/api/v1/auth/register", hoped=(201,), taken=(409,), body=account),
            "registering",
        )
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        await self._tokens(form)
        me = await self._floor.insist(
            lambda: self._client.call("GET", "/api/v1/users/me", headers=self._headers), "reading the profile"
        )
        self.user_id = me.body["id"]

    async def _tokens(
        self,
        form: dict[str, str],
        *,
        used_before: bool = False,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> Answer:
        renewing, repeated = form["grant_type"] == "refresh_token", self._floor.repeats_by_itself
        lost = lose_reply

        async def ask() -> Answer:
            nonlocal repeated, lost, trace_id
            # 401 for a refresh token whose first answer was lost: it was used, and cannot be told from a stolen one.
            taken = (401,) if renewing and (repeated or used_before) else ()
            losing, lost, trace, trace_id, repeated = lost, False, trace_id, None, True
            return await self._client.call(
                "POST", "/api/v1/auth/token", taken=taken, form=form, lose_reply=losing, trace_id=trace
            )

        answer = await self._floor.insist(ask, "signing in")
        if answer.status == 200:
            self._headers = {"Authorization": f"Bearer {answer.body['access_token']}"}
            self.refresh_token = answer.body["refresh_token"]
        return answer

    async def renew(
        self,
        token: str | None = None,
        *,
        used_before: bool = False,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> Answer:
        """Renew the session, by the refresh token at hand or by `token`; raises Unresolved.

        401 is a wrong answer, but to a token of a session in which one was `used_before`, or to a repetition.
        """
        form = {"grant_type": "refresh_token", "refresh_token": token or self.refresh_token}
        return await self._tokens(form, used_before=used_before, lose_reply=lose_reply, trace_id=trace_id)

    async def _visit(self) -> None:
        await self._browse()
        items = self._choice()
        if self._random.random() < 0.5:
            checkout = await self._buy_cart(items)
        else:
            checkout = await self.buy(items, {"items": wanted(items)})
        if any(told.status == 201 for told in checkout.told):
            await self._after(checkout)
        if self._random.random() < 0.1:
            renewed = await self.renew()
            if renewed.status == 401:
                await self.sign_in()

    def _choice(self) -> list[tuple[str, int]]:
        products = self._random.sample(self._floor.product_ids, self._random.randint(1, 3))
        return [(product_id, self._random.randint(1, 3)) for product_id in sorted(products)]

    async def _browse(self) -> None:
        """Look around; what does not come is not missed."""
        await self._client.call("GET", "/api/v1/products", params={"limit": 20})
        found = await self._client.call("GET", "/api/v1/products", params={"q": "lantern", "in_stock": "true"})
        if found.status == 200:
            shown = self._random.choice(found.body["items"])
            read = await self._client.call("GET", "/api/v1/products/{}", shown["id"])
            if read.status == 200:
                known = {"If-None-Match": read.headers["etag"]}
                await self._client.call("GET", "/api/v1/products/{}", shown["id"], hoped=(200, 304), headers=known)
        await self._client.call("GET", "/api/v1/categories")

    async def _buy_cart(self, items: Sequence[tuple[str, int]]) -> Checkout:
        await self.fill_cart(items)
        return await self.buy(items, {})

    async def fill_cart(self, items: Sequence[tuple[str, int]]) -> None:
        """Put these items, and no others, into the cart; raises Unresolved."""
        await self._floor.insist(
            lambda: self._client.call("DELETE", "/api/v1/cart", hoped=(204,), headers=self._headers),
            "emptying the cart",
        )
        for product_id, quantity in items:
            await self._floor.insist(
                lambda product_id=product_id, quantity=quantity: self._client.call(
                    "PUT", "/api/v1/cart/items/{}", product_id, headers=self._headers, body={"quantity": quantity}
                ),
                "filling the cart",
            )
        cart = await self._floor.insist(
            lambda: self._client.call("GET", "/api/v1/cart", headers=self._headers), "reading the cart"
        )
        held = {item["product_id"]: item["quantity"] for item in cart.body["items"]}
        if held != dict(items):
            self._client.wrong.append(f"a cart was filled with {dict(items)} and holds {held}")

    def method(self) -> str:
        """Take a payment method by chance."""
        methods = self._floor.methods
        return self._random.choices(list(methods), list(methods.values()))[0]

    async def buy(
        self,
        items: Sequence[tuple[str, int]],
        body: Mapping[str, object],
        *,
        method: str | None = None,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> Checkout:
        """Check out once, with one key, to an outcome; raises Unresolved.

        With `lose_reply` the first answer is lost. The first request is sent in the trace `trace_id`.
        """
        key = str(UUID(int=self._random.getrandbits(128), version=4))
        checkout = Checkout(self.user_id, key, items)
        self._floor.ledger.checkouts.append(checkout)
        await self.insist_on(checkout, body, method=method, lose_reply=lose_reply, trace_id=trace_id)
        return checkout

    async def insist_on(
        self,
        checkout: Checkout,
        body: Mapping[str, object],
        *,
        method: str | None = None,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> None:
        """Send a checkout until it has an outcome; `method` is drawn where it is not given. Raises Unresolved."""
        order = {**body, "address": ADDRESS, "payment_method": method or self.method()}
        lost = lose_reply

        async def ask() -> Answer:
            nonlocal lost, trace_id
            losing, lost, trace, trace_id = lost, False, trace_id, None
            return await self.ask(checkout, order, lose_reply=losing, trace_id=trace)

        while True:
            answer = await self._floor.insist(ask, f"the checkout {checkout.key}")
            if answer.status == 202:
                await self.settled(answer.body["id"], checkout)
            elif answer.code != "request-in-progress":
                return
            elif self._floor.closed.is_set():
                self._floor.unresolved.append(f"the checkout {checkout.key} is still in progress")
                raise Unresolved(checkout.key)
            else:
                await asyncio.sleep(PAUSE_S)

    async def ask(
        self,
        checkout: Checkout,
        order: Mapping[str, object],
        *,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> Answer:
        """Send a checkout once, and note what it was told."""
        checkout.sent += 1
        answer = await self._client.call(
            "POST",
            "/api/v1/orders",
            hoped=(201, 202),
            taken=(402, 409),
            headers={**self._headers, "Idempotency-Key": checkout.key},
            body=order,
            lose_reply=lose_reply,
            trace_id=trace_id,
        )
        if answer.status is not None and not answer.for_now and answer.code != "request-in-progress":
            checkout.told.append(_told(answer))
        return answer

    async def settled(self, order_id: str, checkout: Checkout) -> None:
        """Read an order until it has come to an end."""
        while True:
            answer = await self._floor.insist(
                lambda: self._client.call("GET", "/api/v1/orders/{}", order_id, headers=self._headers),
                f"reading the order {order_id}",
            )
            if answer.status != 200:
                raise Unresolved(order_id)  # it is written down as a wrong answer
            checkout.seen = answer.body["status"]
            if checkout.seen in FINAL:
                return
            if self._floor.closed.is_set():
                self._floor.unresolved.append(f"the order {order_id} is still {checkout.seen}")
                raise Unresolved(order_id)
            await asyncio.sleep(PAUSE_S)

    async def _after(self, checkout: Checkout) -> None:
        """Look at the order, and cancel it or leave it to the keeper."""
        order_id = checkout.order_id
        assert order_id is not None
        await self.settled(order_id, checkout)
        listed = await self._client.call("GET", "/api/v1/orders", params={"limit": 5}, headers=self._headers)
        if listed.status == 200 and order_id not in [order["id"] for order in listed.body["items"]]:
            self._client.wrong.append(f"the order {order_id} is not among the newest of its buyer")
        payment_id, amount_minor = await self.payment_of(order_id)
        if self._random.random() < CANCELLED_SHARE:
            await self.cancel(checkout)
        elif self._random.random() < 0.2:
            self._floor.for_keeper.append((checkout, payment_id, amount_minor))

    async def payment_of(self, order_id: str) -> tuple[str, int]:
        """The id and the amount of a confirmed order's payment; raises Unresolved."""
        payments = await self._floor.insist(
            lambda: self._client.call("GET", "/api/v1/payments", params={"order_id": order_id}, headers=self._headers),
            "reading the payment",
        )
        payment = payments.body["items"][0]
        if payment["status"] != "captured":
            self._client.wrong.append(f"the order {order_id} is confirmed and its payment {payment['status']}")
        return payment["id"], payment["amount"]["amount_minor"]

    async def cancel(self, checkout: Checkout, *, lose_reply: bool = False, trace_id: str | None = None) -> None:
        """Cancel an order that was sold; raises Unresolved."""
        order_id = checkout.order_id
        assert order_id is not None
        lost = lose_reply

        async def ask() -> Answer:
            nonlocal lost, trace_id
            losing, lost, trace, trace_id = lost, False, trace_id, None
            return await self._client.call(
                "POST", "/api/v1/orders/{}/cancel", order_id,
                hoped=(200, 202), headers=self._headers, lose_reply=losing, trace_id=trace,
            )  # fmt: skip

        while True:
            answer = await self._floor.insist(ask, f"cancelling the order {order_id}")
            if answer.status == 200:
                checkout.cancelled = True
                checkout.seen = "cancelled"
                return
            if answer.status != 202:
                return  # a wrong answer, written down as one
            if self._floor.closed.is_set():
                self._floor.unresolved.append(f"the cancellation of {order_id} is still under way")
                raise Unresolved(order_id)
            await asyncio.sleep(PAUSE_S)


def wanted(items: Sequence[tuple[str, int]]) -> list[dict[str, object]]:
    """Items as an order's body has them."""
    return [{"product_id": product_id, "quantity": quantity} for product_id, quantity in items]


def _told(answer: Answer) -> Told:
    assert answer.status is not None
    members = answer.members
    total_minor = members["total"]["amount_minor"] if "total" in members else None
    return Told(answer.status, members.get("order_id", members.get("id")), total_minor, answer.code)


class Keeper:
    """Who keeps the shop: fills the shelves, ships, and gives part of the money back now and then."""

    def __init__(self, floor: Floor, email: str, password: str) -> None:
        self._floor = floor
        self._client = floor.client
        self._account = {"grant_type": "password", "username": email, "password": password}
        self._random = Random(f"{floor.seed}-keeper")  # noqa: S311 - so that a drill can be repeated
        self._headers: dict[str, str] = {}

    async def sign_in(self) -> None:
        """Sign in; raises Unresolved."""
        answer = await self._floor.insist(
            lambda: self._client.call("POST", "/api/v1/auth/token", form=self._account), "the keeper's signing in"
        )
        self._headers = {"Authorization": f"Bearer {answer.body['access_token']}"}

    @property
    def headers(self) -> dict[str, str]:
        """The keeper's `Authorization`."""
        return self._headers

    async def keep(self) -> None:
        """Look after sold orders until the floor closes."""
        try:
            while not self._floor.closing.is_set():
                if not self._floor.for_keeper:
                    await asyncio.sleep(PAUSE_S)
                    continue
                checkout, payment_id, total_minor = self._floor.for_keeper.popleft()
                assert checkout.order_id is not None
                if self._random.random() < 0.5:
                    await self.refund(checkout.order_id, payment_id, max(1, total_minor // 3))
                else:
                    await self._ship(checkout.order_id)
                    checkout.seen = "shipped"
        except Unresolved:
            pass  # it is written down

    async def refund(
        self,
        order_id: str,
        payment_id: str,
        amount_minor: int,
        *,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> None:
        """Give part of a payment back, once; raises Unresolved."""
        key = str(UUID(int=self._random.getrandbits(128), version=4))
        lost = lose_reply

        async def ask() -> Answer:
            nonlocal lost, trace_id
            losing, lost, trace, trace_id = lost, False, trace_id, None
            return await self._client.call(
                "POST", "/api/v1/payments/{}/refund", payment_id, taken=(409,), lose_reply=losing, trace_id=trace,
                headers={**self._headers, "Idempotency-Key": key},
                body={"amount_minor": amount_minor, "reason": "a drill"},
            )  # fmt: skip

        while True:
            answer = await self._floor.insist(ask, f"the refund of the order {order_id}")
            if answer.code != "request-in-progress":
                break
            if self._floor.closed.is_set():
                self._floor.unresolved.append(f"the refund of the order {order_id} is still in progress")
                raise Unresolved(order_id)
            await asyncio.sleep(PAUSE_S)
        if answer.status == 200:
            self._floor.ledger.refunded_minor[order_id] += amount_minor
        else:
            self._client.wrong.append(f"a refund was answered {answer.status} {answer.body}")

    async def _ship(self, order_id: str) -> None:
        # A repetition of one whose answer was lost finds it shipped, and is refused for that.
        answer = await self._floor.insist(
            lambda: self._client.call("POST", "/api/v1/orders/{}/ship", order_id, taken=(409,), headers=self._headers),
            f"shipping the order {order_id}",
        )
        if answer.status in {200, 409}:
            for checkout in self._floor.ledger.checkouts:
                if checkout.order_id == order_id:
                    checkout.seen = "shipped"
