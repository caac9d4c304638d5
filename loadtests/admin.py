"""The admin, who keeps the shop: imports products in both formats, moves stock, and refunds a part of what was paid."""

import csv
import io
import json
import time
from collections.abc import Sequence
from typing import Any

from loadtests.customer import Customer
from loadtests.floor import Account
from loadtests.shape import SHOPPING_MIX
from loadtests.shelves import OWN_CATEGORY

LINES = 5
SHELVES = 40
"""Skus that all admins of all runs share: an import of one that is there updates it, so runs leave these at most."""
COLUMNS: Sequence[str] = ("sku", "name", "category", "tags", "price_minor", "currency", "on_hand")
UNITS = 100


class Admin(Customer):
    """One of a hundred who come, and the only one who changes the catalogue: products of its own category, never a
    price that a shopper was shown.
    """

    weight = SHOPPING_MIX["admin"]
    journey = "admin"

    def shop(self) -> None:
        self.come_as_admin()
        self.think()
        product_id = self.import_products()
        self.think()
        self.move_stock(product_id)
        self.think()
        self.refund()

    def come_as_admin(self) -> None:
        """All admins of a process are one account, which signs in again when its token is old."""
        plan = self.floor.plan
        known = self.floor.admin
        if known is None or known.token_until < time.monotonic():
            known = Account(plan.admin_email)
            self.sign_in(known, plan.admin_password)
            self.floor.admin = known
        self.account = known

    def import_products(self) -> str:
        """Import five products and a line that is wrong: five land, the wrong one is named. Returns a product's id."""
        first = self.draw.randrange(SHELVES)
        products = [self._product((first + place) % SHELVES) for place in range(LINES)]
        as_csv = self.draw.random() < 0.5
        content, wrong_line = _csv(products) if as_csv else _ndjson(products)
        headers = {**self.bearer, "Content-Type": "text/csv" if as_csv else "application/x-ndjson"}
        with self.asked("POST", "/api/v1/products/import", content=content, headers=headers) as answer:
            answer.must_be(200)
            report = answer.object()
            answer.must(report["created"] + report["updated"] == LINES, f"{LINES} good lines, and {report}")
            numbers = [each["line"] for each in report["rejected"]]
            answer.must(numbers == [wrong_line], f"line {wrong_line} is wrong, and {report['rejected']}")
        query = {"category": OWN_CATEGORY, "limit": 100}
        with self.asked("GET", "/api/v1/products", query=query) as answer:
            answer.must_be(200)
            found = {item["sku"]: item for item in answer.items(100)}
            for product in products:
                listed = found[product["sku"]]
                answer.must(
                    listed["name"] == product["name"], f"imported as {product['name']}, listed as {listed['name']}"
                )
                answer.must(listed["price"]["amount_minor"] == product["price_minor"], f"listed at {listed['price']}")
        product_id: str = found[products[0]["sku"]]["id"]
        return product_id

    def _product(self, shelf: int) -> dict[str, Any]:
        """The same in each run, so that admins who import it at once agree."""
        return {
            "sku": f"LOAD-{shelf:04}",
            "name": f"Lantern no. {shelf}",
            "category": OWN_CATEGORY,
            "tags": ["lantern", "brass"],
            "price_minor": 1500 + shelf,
            "currency": "USD",
            "on_hand": UNITS,
        }

    def move_stock(self, product_id: str) -> None:
        """Units come in. Others import and move at the same time, so what holds of any level is checked."""
        delta = self.draw.randint(1, 20)
        body = {"delta": delta, "reason": "load test"}
        with self.asked("POST", "/api/v1/products/{}/stock", product_id, body=body, headers=self.bearer) as answer:
            answer.must_be(200)
            level = answer.object()
            left = level["on_hand"] - level["reserved"]
            answer.must(level["available"] == left, f"{level['available']} available of {level}")
            answer.must(level["on_hand"] >= UNITS + delta, f"{delta} came in, and there are {level}")

    def refund(self) -> None:
        """A third of what somebody paid goes back, once: the same key answers the same again."""
        if not self.floor.sales:
            return  # nobody has bought yet
        sale = self.floor.sales.popleft()
        amount_minor = max(1, sale.total_minor // 3)
        body = {"amount_minor": amount_minor, "reason": "load test"}
        headers = {**self.bearer, "Idempotency-Key": f"{self.floor.plan.run}-{self.number}-refund"}
        first: dict[str, Any] = {}
        for replayed in (False, True):
            with self.asked(
                "POST", "/api/v1/payments/{}/refund", sale.payment_id, body=body, headers=headers
            ) as answer:
                answer.must_be(200)
                payment = answer.object()
                answer.must(payment["refunded"]["amount_minor"] == amount_minor, f"refunded: {payment['refunded']}")
                whole = amount_minor == sale.total_minor
                answer.must(payment["status"] == ("refunded" if whole else "partially_refunded"), payment["status"])
                answer.must(not replayed or payment == first, "another answer to the same key")
                answer.must((answer.headers.get("Idempotency-Replayed") == "true") == replayed, "replayed, or not")
                first = payment
        with self.asked("GET", "/api/v1/orders/{}", sale.order_id, headers=self.bearer) as answer:
            answer.must_be(200)
            answer.must(answer.object()["status"] == "confirmed", "a refund has changed the order's status")


def _ndjson(products: list[dict[str, Any]]) -> tuple[bytes, int]:
    """The products and a line that is none, and its number."""
    lines = [json.dumps(product) for product in products]
    return "\n".join([*lines, '{"sku": "LOAD-WRONG"}', ""]).encode(), len(products) + 1


def _csv(products: list[dict[str, Any]]) -> tuple[bytes, int]:
    """The same as CSV, whose first line names the columns and has the number 1."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({**product, "tags": "|".join(product["tags"])} for product in products)
    writer.writerow({"sku": "LOAD-WRONG"})
    return text.getvalue().encode(), len(products) + 2
