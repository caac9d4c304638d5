"""Whether what the clients were told is what the platform believes.

The audit compares the services with each other, and would be content with a shop that sold nothing. The oracle holds
them to their word: it knows each request by its idempotency key, and everything that came back for it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drills.audit import SOLD, Beliefs

PAID_IN_FULL = frozenset({"captured", "partially_refunded", "refunded"})


@dataclass(frozen=True, slots=True)
class Told:
    """One answer to a checkout: its status, and what it said."""

    status: int
    order_id: str | None
    total_minor: int | None = None
    code: str = ""


@dataclass(slots=True)
class Checkout:
    """One idempotency key: what was wanted, and every answer that came for it."""

    user_id: str
    key: str
    items: Sequence[tuple[str, int]]
    """Products and quantities."""
    told: list[Told] = field(default_factory=list[Told])
    sent: int = 0
    seen: str | None = None
    """The last status that a read of the order showed."""
    cancelled: bool = False
    """Whether the shop answered that the order is cancelled."""

    @property
    def outcomes(self) -> set[Told]:
        """The answers that are final: those that tell the order's end."""
        return {told for told in self.told if told.status in {201, 402, 409}}

    @property
    def order_id(self) -> str | None:
        """The order that the key made, where an answer named it."""
        return next((told.order_id for told in self.told if told.order_id is not None), None)


@dataclass(slots=True)
class Ledger:
    """What all shoppers of a drill know: their checkouts, and the stock that was put on the shelves before."""

    checkouts: list[Checkout] = field(default_factory=list[Checkout])
    on_shelf: dict[str, int] = field(default_factory=dict[str, int])
    """Units by product."""
    refunded_minor: Counter[str] = field(default_factory=Counter[str])
    """What the shop said it had given back of an order that stays sold, by order."""


def disagreements(ledger: Ledger, beliefs: Beliefs) -> list[str]:
    """Everything that a client was told and that is not so, and whatever is there that nobody was told of."""
    return sorted(
        [
            *(line for checkout in ledger.checkouts for line in _of_checkout(checkout, beliefs)),
            *_unheard_of(ledger, beliefs),
            *_units(ledger, beliefs),
            *_money(ledger, beliefs),
        ]
    )


def _of_checkout(checkout: Checkout, beliefs: Beliefs) -> Iterator[str]:
    name = f"the checkout {checkout.key}"
    if not checkout.outcomes:
        yield f"{name} was sent {checkout.sent} times and came to no end: {_statuses(checkout.told)}"
        return
    if len(checkout.outcomes) > 1:
        yield f"{name} was told several ends: {_statuses(checkout.told)}"
    orders = {told.order_id for told in checkout.told if told.order_id is not None}
    if len(orders) != 1:
        yield f"{name} has {len(orders)} orders"
        return
    (order_id,) = orders
    order: Mapping[str, Any] | None = beliefs.orders.get(order_id)
    if order is None:
        yield f"{name} was told of the order {order_id}, which is not there"
        return
    (*_, outcome) = checkout.outcomes
    if order["user_id"] != checkout.user_id:
        yield f"{name}: the order {order_id} is another user's"
    if outcome.status == 201:
        yield from _sold(name, checkout, outcome, order, beliefs)
    elif order["status"] not in {"rejected", "cancelled"}:
        yield f"{name} was refused with {outcome.status} and its order is {order['status']}"
    else:
        yield from _nothing_moved(name, order_id, beliefs)
    if checkout.seen is not None and checkout.seen != order["status"]:
        yield f"{name}: a read showed {checkout.seen}, and the order is {order['status']}"


def _sold(name: str, checkout: Checkout, outcome: Told, order: Mapping[str, Any], beliefs: Beliefs) -> Iterator[str]:
    order_id = order["id"]
    wanted = "cancelled" if checkout.cancelled else "confirmed"
    if (order["status"] == "cancelled") != checkout.cancelled or order["status"] not in {*SOLD, "cancelled"}:
        yield f"{name} was told {wanted} and its order is {order['status']}"
    if order["total"]["amount_minor"] != outcome.total_minor:
        yield f"{name} was told a total of {outcome.total_minor}, and it is {order['total']['amount_minor']}"
    lines = {line["product_id"]: line["quantity"] for line in order["lines"]}
    if lines != dict(checkout.items):
        yield f"{name} wanted {dict(checkout.items)}, and the order is of {lines}"
    payment = beliefs.payments.get(order_id)
    if payment is None or payment["captured_minor"] != outcome.total_minor:
        captured = payment and payment["captured_minor"]
        yield f"{name}: {captured} was captured for a total of {outcome.total_minor}"
    if checkout.cancelled:
        if payment is not None and payment["refunded_minor"] != payment["captured_minor"]:
            yield f"{name} was cancelled, and {payment['refunded_minor']} of {payment['captured_minor']} given back"
        reservation = beliefs.reservations.get(order_id)
        if reservation is not None and reservation["status"] != "released":
            yield f"{name} was cancelled, and its stock is {reservation['status']}"


def _nothing_moved(name: str, order_id: str, beliefs: Beliefs) -> Iterator[str]:
    payment = beliefs.payments.get(order_id)
    if payment is not None and payment["captured_minor"] != payment["refunded_minor"]:
        yield f"{name} was refused, and {payment['captured_minor']} is captured for it"
    reservation = beliefs.reservations.get(order_id)
    if reservation is not None and reservation["status"] in {"held", "committed"}:
        yield f"{name} was refused, and stock is {reservation['status']} for it"


def _statuses(told: Iterable[Told]) -> str:
    return ", ".join(f"{each.status} {each.code}".strip() for each in told) or "no answer"


def _unheard_of(ledger: Ledger, beliefs: Beliefs) -> Iterator[str]:
    """An order that no answer named, and one made twice, would both be here."""
    known = {checkout.order_id for checkout in ledger.checkouts}
    for order_id in beliefs.orders.keys() - known:
        yield f"the order {order_id} exists, and nobody was told of it"
    made = Counter(checkout.order_id for checkout in ledger.checkouts if checkout.order_id is not None)
    for order_id, keys in made.items():
        if keys > 1:
            yield f"the order {order_id} was told to {keys} keys"


def _units(ledger: Ledger, beliefs: Beliefs) -> Iterator[str]:
    sold: defaultdict[str, int] = defaultdict(int)
    for checkout in ledger.checkouts:
        if any(told.status == 201 for told in checkout.told) and not checkout.cancelled:
            for product_id, quantity in checkout.items:
                sold[product_id] += quantity
    for product_id, units in ledger.on_shelf.items():
        stock = beliefs.stock[product_id]
        if stock["on_hand"] != units - sold[product_id] or stock["reserved"]:
            yield (
                f"of {units} units of {product_id} the clients were sold {sold[product_id]}, "
                f"and {stock['on_hand']} are left, {stock['reserved']} reserved"
            )


def _money(ledger: Ledger, beliefs: Beliefs) -> Iterator[str]:
    owed = sum(
        told.total_minor or 0
        for checkout in ledger.checkouts
        if not checkout.cancelled
        for told in checkout.outcomes
        if told.status == 201
    ) - sum(ledger.refunded_minor.values())
    kept = sum(payment["captured_minor"] - payment["refunded_minor"] for payment in beliefs.payments.values())
    if owed != kept:
        yield f"the clients were told that they paid {owed} in all, and {kept} is kept"
    for order_id, refunded_minor in ledger.refunded_minor.items():
        payment = beliefs.payments.get(order_id)
        if payment is None or payment["refunded_minor"] != refunded_minor:
            yield f"{refunded_minor} of the order {order_id} was said to be given back, not {payment}"
