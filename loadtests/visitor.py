"""The visitor, who looks and leaves: browses, searches, filters, turns a page, and looks at a product twice."""

from typing import Any

from loadtests.floor import Product
from loadtests.shape import SHOPPING_MIX
from loadtests.shopper import Answer, Shopper

LIMIT = 20
STEM = 3
"""Letters at the beginning of a word that stemming leaves alone; words that are searched for have five or more."""


def must_be_product(answer: Answer, body: dict[str, Any], wanted: Product) -> None:
    """What the contract says of a product, and that it is the one that was asked for, at its price."""
    told = (body["id"], body["sku"], body["price"]["amount_minor"])
    answer.must(told == (wanted.id, wanted.sku, wanted.price_minor), f"{told}, and {wanted} was asked for")
    answer.must(isinstance(body["available"], int) and body["available"] >= 0, f"available: {body['available']}")


def prices(items: list[dict[str, Any]]) -> list[int]:
    """The prices of the items of a list, in minor units."""
    return [item["price"]["amount_minor"] for item in items]


class Visitor(Shopper):
    """Six of seven who come. The catalogue is read, and nothing else."""

    weight = SHOPPING_MIX["visitor"]
    journey = "visitor"

    def shop(self) -> None:
        self.browse()
        self.think()
        self.search()
        self.think()
        self.filter()
        self.think()
        product = self.floor.liked(self.draw)
        tag = self.look_at(product)
        if self.draw.random() < 0.5:  # half of them come back to what they have seen; ours
            self.think()
            self.look_again(product, tag)

    def browse(self) -> None:
        """The categories and the newest products, both at once on a page, and the page after it."""
        with self.asked("GET", "/api/v1/categories") as answer:
            answer.must_be(200)
            slugs = [category["slug"] for category in answer.json()]
            answer.must(slugs and len(set(slugs)) == len(slugs), f"categories: {slugs}")
            answer.must(all(category["product_count"] > 0 for category in answer.json()), "an empty category is listed")
        with self.asked("GET", "/api/v1/products", query={"limit": LIMIT}) as answer:
            answer.must_be(200)
            first = [item["id"] for item in answer.items(LIMIT)]
            cursor = answer.object()["next_cursor"]
            answer.must(first, "an empty shop")
            answer.must((cursor is None) or len(first) == LIMIT, "a page that is not full has one after it")
        if cursor is None:
            return
        self.think()
        with self.asked("GET", "/api/v1/products", query={"limit": LIMIT, "cursor": cursor}) as answer:
            answer.must_be(200)
            second = [item["id"] for item in answer.items(LIMIT)]
            answer.must(not set(first) & set(second), "a product stands on two pages")

    def search(self) -> None:
        """A word of some product's name: something is found, and all that is found has it."""
        word = self.floor.word(self.draw)
        with self.asked("GET", "/api/v1/products", query={"q": word, "limit": LIMIT}) as answer:
            answer.must_be(200)
            items = answer.items(LIMIT)
            answer.must(items, f"nothing is found for {word}")
            for item in items:
                text = " ".join((item["name"], item["description"] or "", *item["tags"])).lower()
                answer.must(word[:STEM] in text, f"{item['sku']} is found for {word}")

    def filter(self) -> None:
        """One category, what is in stock, within a price, the cheapest first."""
        product = self.floor.products[self.draw.randrange(len(self.floor.products))]
        query = {
            "category": product.category,
            "max_price": product.price_minor,
            "in_stock": "true",
            "sort": "price",
            "limit": LIMIT,
        }
        with self.asked("GET", "/api/v1/products", query=query) as answer:
            answer.must_be(200)
            items = answer.items(LIMIT)
            found = prices(items)
            answer.must(found == sorted(found), f"not by price: {found}")
            answer.must(all(price <= product.price_minor for price in found), f"dearer than asked: {found}")
            answer.must(all(item["category"] == product.category for item in items), "of another category")
            answer.must(all(item["available"] > 0 for item in items), "not in stock")

    def look_at(self, product: Product) -> str:
        """The product, and the tag of what was seen."""
        with self.asked("GET", "/api/v1/products/{}", product.id) as answer:
            answer.must_be(200)
            must_be_product(answer, answer.object(), product)
            tag = answer.headers["ETag"]
            answer.must(tag.startswith('"') and tag.endswith('"'), f"not a strong ETag: {tag}")
        return tag

    def look_again(self, product: Product, tag: str) -> None:
        """As a browser does that has it: 304 and nothing else where it is the same, all of it where it is not."""
        headers = {"If-None-Match": tag}
        with self.asked("GET", "/api/v1/products/{}", product.id, headers=headers) as answer:
            answer.must_be(200, 304)
            if answer.status == 304:
                answer.must(answer.headers["ETag"] == tag, "304 for another tag")
                answer.must(not answer.content, "304 with a body")
            else:  # somebody has bought one meanwhile
                answer.must(answer.headers["ETag"] != tag, "200 for what the browser has")
                must_be_product(answer, answer.object(), product)
