"""What buyers and returners have alike: an account, a checkout, and the order followed until it is decided."""

import json
import time
from typing import Any

from locust.env import Environment

from loadtests.floor import Account, Product, Sale
from loadtests.shopper import Answer, Shopper

PASSWORD = "a shopper of the load tests"  # noqa: S105 - of accounts that a load test registers
ADDRESS = {"name": "Ada", "line1": "12 St James Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}
METHODS = {
    "tok_visa": 70,
    "tok_mastercard": 14,
    "tok_declined": 3,
    "tok_insufficient_funds": 3,
    "tok_expired_card": 3,
    "tok_slow": 3,
    "tok_timeout": 4,
}
"""Payment methods, and how many of 100 take each. Ours: nine of ten approve, and each way of a provider is met."""
DECLINES = {
    "tok_declined": "declined",
    "tok_insufficient_funds": "insufficient_funds",
    "tok_expired_card": "expired_card",
}
NEW_SHARE = 0.4
"""Who registers; the others sign in again. Ours."""
TOKEN_KEPT_S = 600.0
"""Of the 900 s that an access token lives."""
WAY = ("pending", "reserved", "authorised", "confirmed")
"""The statuses of an order that is sold, in their order."""
DECIDED = frozenset({"confirmed", "rejected", "cancelled"})

Order = dict[str, Any]


def total_of(answer: Answer, lines: list[dict[str, Any]]) -> int:
    """The sum of the lines of a cart or an order, each of which has to be its quantity times its price."""
    for each in lines:
        expected = each["quantity"] * each["unit_price"]["amount_minor"]
        answer.must(each["line_total"]["amount_minor"] == expected, f"a line total of {each['line_total']}: {each}")
    return sum(each["line_total"]["amount_minor"] for each in lines if each.get("problem") is None)


class Customer(Shopper):
    """A shopper who has an account, and buys."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.account = Account("")
        self._keys = 0

    @property
    def bearer(self) -> dict[str, str]:
        """The customer's `Authorization`."""
        return {"Authorization": f"Bearer {self.account.token}"}

    def come_in(self) -> None:
        """Sign in again, or register and sign in. Nobody else has the account meanwhile: a cart is one shopper's."""
        accounts = self.floor.accounts
        if accounts and self.draw.random() >= NEW_SHARE:
            self.account = accounts.popleft()
        else:
            self.account = Account(f"load-{self.floor.plan.run}-{self.number}@souk.example")
            self.register()
        self.sign_in(self.account, PASSWORD)

    def go(self) -> None:
        """Leave the account to the next one who signs in again; one whose journey broke off is not used again."""
        self.floor.accounts.append(self.account)

    def register(self) -> None:
        """A new customer."""
        body = {"email": self.account.email, "password": PASSWORD, "name": f"Shopper {self.number}"}
        with self.asked("POST", "/api/v1/auth/register", body=body) as answer:
            answer.must_be(201)
            user = answer.object()
            told = (user["email"], user["name"], user["role"])
            answer.must(told == (self.account.email, body["name"], "customer"), f"another user: {told}")
            answer.must("password" not in user, "a password in an answer")

    def sign_in(self, account: Account, password: str) -> None:
        """An access token, and whose it is."""
        form = {"grant_type": "password", "username": account.email, "password": password}
        with self.asked("POST", "/api/v1/auth/token", form=form) as answer:
            answer.must_be(200)
            tokens = answer.object()
            answer.must(str(tokens["token_type"]).lower() == "bearer", f"a token of type {tokens['token_type']}")
            account.token = tokens["access_token"]
            account.token_until = time.monotonic() + min(TOKEN_KEPT_S, float(tokens["expires_in"]) / 2)
        self.account = account
        with self.asked("GET", "/api/v1/users/me", headers=self.bearer) as answer:
            answer.must_be(200)
            answer.must(answer.object()["email"] == account.email, "signed in as somebody else")

    # The order

    def check_out(self, method: str, items: dict[Product, int], *, from_cart: bool) -> Order | None:
        """Order and pay; none where the card is declined or there is not enough of something, as it may be."""
        self._keys += 1
        body: dict[str, Any] = {"payment_method": method, "address": ADDRESS}
        if not from_cart:
            body["items"] = [{"product_id": product.id, "quantity": count} for product, count in items.items()]
        headers = {**self.bearer, "Idempotency-Key": f"{self.floor.plan.run}-{self.number}-{self._keys}"}
        total_minor = sum(product.price_minor * count for product, count in items.items())
        order: Order | None = None
        outcome, order_id = "", ""
        with self.asked("POST", "/api/v1/orders", body=body, headers=headers) as answer:
            declined = DECLINES.get(method)
            answer.must_be(*((402, 409) if declined else (201, 202, 409)))
            found = answer.object()
            if answer.status == 402:
                answer.must(found["decline_code"] == declined, f"{method} was declined as {found['decline_code']}")
                outcome, order_id = "declined", found["order_id"]
            elif answer.status == 409:
                answer.must(str(found["type"]).endswith("/insufficient-stock"), f"409 {found['type']}")
                wanted = {product.id: count for product, count in items.items()}
                short = all(each["available"] < wanted[each["product_id"]] for each in found["items"])
                answer.must(found["items"] and short, f"refused, and there is enough: {found['items']}")
                outcome, order_id = "short", found["order_id"]
            else:
                order = found
                order_id = found["id"]
                self.must_be_ordered(answer, found, items)
                answer.must(found["status"] == ("confirmed" if answer.status == 201 else "pending"), found["status"])
                answer.must(answer.headers["Location"].endswith(order_id), f"Location: {answer.headers['Location']}")
        if order is None:
            self.floor.wrote_order(order_id, outcome, total_minor, 0)
        return order

    def must_be_ordered(self, answer: Answer, order: Order, items: dict[Product, int]) -> None:
        """The lines that were asked for, at the prices that were shown, and their sum."""
        lines = {each["product_id"]: each["quantity"] for each in order["lines"]}
        answer.must(lines == {product.id: count for product, count in items.items()}, f"other lines: {lines}")
        total_minor = total_of(answer, order["lines"])
        expected = sum(product.price_minor * count for product, count in items.items())
        told = order["total"]["amount_minor"]
        answer.must(told == total_minor == expected, f"a total of {told}, lines of {total_minor}, and {expected} shown")

    def follow(self, order: Order, items: dict[Product, int]) -> str:
        """Read the order's event stream until it is decided, and return how."""
        seen: list[str] = []
        numbers: list[int] = []
        with self.asked("GET", "/api/v1/orders/{}/events", order["id"], headers=self.bearer, stream=True) as answer:
            answer.must_be(200)
            answer.must(answer.headers["Content-Type"].startswith("text/event-stream"), "not an event stream")
            for text in answer.lines():
                name, _, value = text.partition(": ")
                if name == "id":
                    numbers.append(int(value))
                elif name == "data":
                    seen.append(json.loads(value)["status"])
                if seen and seen[-1] in DECIDED:
                    break
            answer.must(seen and seen[-1] in DECIDED, f"the stream ended after {seen}")
            answer.must(numbers == sorted(set(numbers)), f"events out of order: {numbers}")
            passed = [status for status in seen if status in WAY]
            answer.must(passed == list(WAY[: len(passed)]), f"the order went {seen}")
            answer.must(order["status"] != "confirmed" or seen == list(WAY), f"confirmed, and the order went {seen}")
        units = sum(count for product, count in items.items() if product is self.floor.hot)
        self.floor.wrote_order(order["id"], seen[-1], order["total"]["amount_minor"], units)
        return seen[-1]

    def payment_of(self, order: Order, status: str, refunded_minor: int) -> Sale:
        """The order's payment, which has to be of its total, with so much given back."""
        query = {"order_id": order["id"]}
        with self.asked("GET", "/api/v1/payments", query=query, headers=self.bearer) as answer:
            answer.must_be(200)
            (payment,) = answer.items(20)
            total_minor = order["total"]["amount_minor"]
            told = (payment["status"], payment["captured"]["amount_minor"], payment["refunded"]["amount_minor"])
            answer.must(told == (status, total_minor, refunded_minor), f"a payment {told} of a total of {total_minor}")
            answer.must(payment["order_id"] == order["id"], "another order's payment")
        return Sale(order["id"], payment["id"], total_minor)
