"""The returner: buys one thing at once, thinks better of it, cancels, and sees the money given back."""

from loadtests.customer import Customer, Order
from loadtests.floor import Product
from loadtests.shape import SHOPPING_MIX

METHOD = "tok_visa"


class Returner(Customer):
    """Three of a hundred who come: of four who buy one thinks better of it. Ours."""

    weight = SHOPPING_MIX["returner"]
    journey = "returner"

    def shop(self) -> None:
        self.come_in()
        product = self.floor.liked(self.draw)
        self.think()
        items = {product: 1}
        order = self.check_out(METHOD, items, from_cart=False)
        if order is not None and self.follow(order, items) == "confirmed":
            self.payment_of(order, "captured", 0)
            self.think()
            self.cancel(order, product)
            self.payment_of(order, "refunded", order["total"]["amount_minor"])
            self.see_cancelled(order)
        self.go()

    def cancel(self, order: Order, product: Product) -> None:
        """Cancel, and where a step of the order is in flight ask again until it is done: cancelling twice is fine."""
        status = 202
        while status == 202:
            with self.asked("POST", "/api/v1/orders/{}/cancel", order["id"], headers=self.bearer) as answer:
                answer.must_be(200, 202)
                status = answer.status
                answer.must(answer.object()["id"] == order["id"], "another order")
                answer.must(status == 202 or answer.object()["status"] == "cancelled", answer.object()["status"])
            if status == 202:
                self.think()
        units = 1 if product is self.floor.hot else 0
        self.floor.wrote_order(order["id"], "cancelled", order["total"]["amount_minor"], units)

    def see_cancelled(self, order: Order) -> None:
        """Among those that are cancelled it is the newest, with every status that it passed."""
        query = {"status": "cancelled", "limit": 20}
        with self.asked("GET", "/api/v1/orders", query=query, headers=self.bearer) as answer:
            answer.must_be(200)
            newest, *_ = answer.items(20)
            answer.must(newest["id"] == order["id"], "the newest cancelled order is another one")
            passed = [entry["status"] for entry in newest["history"]]
            answer.must(passed[0] == "pending" and passed[-1] == "cancelled", f"the order went {passed}")
