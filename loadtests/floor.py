"""What all shoppers of one generator process share: the plan, the clock, the catalogue, accounts, and the pen.

Only Locust's processes import this, and what imports it: gevent has patched the sockets and the sleep of theirs.
"""

import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gevent.event import Event

from loadtests.record import Order, Request, Row, line
from loadtests.schedule import Popularity
from loadtests.shape import Shape

LEAD_S = 2.0
"""From the word to begin to the beginning: time for every process to read the catalogue."""
WORD = re.compile(r"[a-z]{5,}")
ACCOUNTS_KEPT = 500
SALES_KEPT = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, as the command line says."""

    shape: Shape
    seed: int
    run: str
    """Tells e-mails and keys of this run from those of every other."""
    admin_email: str
    admin_password: str
    hot_sku: str | None
    most_in_shop: int
    """Shoppers that one process has at a time; who comes then waits, and is counted from when it should have come."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product as it was when the run began. Nobody changes the prices of the catalogue meanwhile."""

    id: str
    sku: str
    name: str
    category: str
    price_minor: int


@dataclass(slots=True)
class Account:
    """A customer who has registered."""

    email: str
    token: str = ""
    token_until: float = 0.0
    """By the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A captured payment of an order that its buyer keeps."""

    order_id: str
    payment_id: str
    total_minor: int


@dataclass(slots=True)
class Floor:
    """One process's part of a run."""

    plan: Plan
    index: int
    """Which of the run's processes this is, from 0, ..."""
    processes: int
    """... of how many."""
    began: float
    """The beginning of the warm-up by the monotonic clock."""
    products: Sequence[Product] = ()
    hot: Product | None = None
    closing: Event = field(default_factory=Event)
    """From then on nobody sends anything new."""
    accounts: deque[Account] = field(default_factory=lambda: deque[Account](maxlen=ACCOUNTS_KEPT))
    sales: deque[Sale] = field(default_factory=lambda: deque[Sale](maxlen=SALES_KEPT))
    admin: Account | None = None
    lines: list[str] = field(default_factory=list[str])
    """Written down, and not yet handed on."""
    requests: int = 0
    arrivals: int = 0
    in_shop: int = 0
    waiting: int = 0
    all_have_come: bool = False
    """Whether nobody is at the door any more: the schedule is over, or there is none."""
    _popularity: Popularity = field(default_factory=lambda: Popularity(1))
    _words: Sequence[str] = ()

    def now_s(self) -> float:
        """Seconds since the beginning of the warm-up."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether the shape has come to its end, not the run to a sudden one."""
        return self.now_s() >= self.plan.shape.ends_s

    @property
    def done(self) -> bool:
        """Whether it is over, and everybody has left."""
        return self.over and self.all_have_come and not self.in_shop

    def write(self, row: Row) -> None:
        """Write a row down."""
        self.lines.append(line(row))

    def wrote_request(self, request: Request) -> None:
        """Write a request down and count it."""
        self.requests += 1
        self.write(request)

    def wrote_order(self, order_id: str, status: str, total_minor: int, hot_units: int) -> None:
        """Write down what a shopper was told of an order."""
        self.write(Order(self.now_s(), order_id, status, total_minor, hot_units))

    def take_lines(self) -> list[str]:
        """What was written down since it was asked last."""
        taken, self.lines = self.lines, []
        return taken

    def stock(self, products: Sequence[dict[str, Any]], hot: dict[str, Any] | None) -> None:
        """Know the catalogue: `products` are all that shoppers look at, the most liked first."""
        self.products = [_product(each) for each in products]
        self.hot = None if hot is None else _product(hot)
        self._popularity = Popularity(len(self.products))
        words = {word for each in self.products for word in WORD.findall(each.name.lower())}
        self._words = sorted(words) or [self.products[0].name]

    def liked(self, random: Random) -> Product:
        """A product, drawn by how products are liked; in a flash sale the one that everyone wants."""
        return self.hot or self.products[self._popularity.draw(random)]

    def word(self, random: Random) -> str:
        """A word that a product's name has, such as people search for."""
        return random.choice(self._words)


def _product(body: dict[str, Any]) -> Product:
    return Product(body["id"], body["sku"], body["name"], body["category"], body["price"]["amount_minor"])
