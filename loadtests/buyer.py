"""The buyer: looks around, signs in, fills a cart, pays, follows the order, and finds it in the history."""

from loadtests.customer import METHODS, Customer, Order, total_of
from loadtests.floor import Product
from loadtests.shape import SHOPPING_MIX
from loadtests.visitor import must_be_product

MOST_PRODUCTS = 3
MOST_OF_ONE = 2


class Buyer(Customer):
    """One of nine who come."""

    weight = SHOPPING_MIX["buyer"]
    journey = "buyer"

    def shop(self) -> None:
        items = self.choose()
        self.come_in()
        self.think()
        self.fill_cart(items)
        self.think()
        (method,) = self.draw.choices(list(METHODS), list(METHODS.values()))
        order = self.check_out(method, items, from_cart=True)
        if order is None:
            self.empty_cart()
        else:
            if self.follow(order, items) == "confirmed":
                self.floor.sales.append(self.payment_of(order, "captured", 0))
            self.think()
            self.find_in_history(order)
        self.go()

    def choose(self) -> dict[Product, int]:
        """Look at one to three products; of most of them one is wanted."""
        wanted: dict[Product, int] = {}
        for _ in range(1 if self.floor.hot else self.draw.randint(1, MOST_PRODUCTS)):
            product = self.floor.liked(self.draw)
            wanted[product] = self.draw.randint(1, MOST_OF_ONE)
            with self.asked("GET", "/api/v1/products/{}", product.id) as answer:
                answer.must_be(200)
                must_be_product(answer, answer.object(), product)
            self.think()
        return wanted

    def fill_cart(self, items: dict[Product, int]) -> None:
        """Put the products in one by one, each answer being the cart so far, and look at it whole."""
        inside: dict[str, int] = {}
        for product, count in items.items():
            inside[product.id] = count
            body = {"quantity": count}
            with self.asked("PUT", "/api/v1/cart/items/{}", product.id, body=body, headers=self.bearer) as answer:
                answer.must_be(200)
                cart = answer.object()
                found = {each["product_id"]: each["quantity"] for each in cart["items"]}
                answer.must(found == inside, f"a cart of {found} where {inside} was put in")
        with self.asked("GET", "/api/v1/cart", headers=self.bearer) as answer:
            answer.must_be(200)
            cart = answer.object()
            total_minor = total_of(answer, cart["items"])
            answer.must(cart["total"]["amount_minor"] == total_minor, f"a total of {cart['total']}, not {total_minor}")
            shown = {each["product_id"]: each["unit_price"]["amount_minor"] for each in cart["items"]}
            answer.must(shown == {each.id: each.price_minor for each in items}, f"other prices: {shown}")

    def empty_cart(self) -> None:
        """What was not sold lies in the cart still."""
        with self.asked("DELETE", "/api/v1/cart", headers=self.bearer) as answer:
            answer.must_be(204)

    def find_in_history(self, order: Order) -> None:
        """The order is the newest of the customer's own, and the cart that it came from is empty."""
        with self.asked("GET", "/api/v1/orders", query={"limit": 20}, headers=self.bearer) as answer:
            answer.must_be(200)
            newest, *_ = answer.items(20)
            answer.must(newest["id"] == order["id"], "the newest order is another one")
            answer.must(newest["total"] == order["total"], f"{newest['total']} in the list, {order['total']} told")
        with self.asked("GET", "/api/v1/cart", headers=self.bearer) as answer:
            answer.must_be(200)
            answer.must(answer.object()["items"] == [], "the cart is not empty after it was sold")
