"""A world in which clients were told the truth, and then each lie that the oracle has to find."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from drills.audit import Beliefs
from drills.oracle import Checkout, Ledger, Told, disagreements

PRICE_MINOR = 500
ON_SHELF = 100


@dataclass(slots=True)
class World:
    """What the clients know and what the services believe."""

    ledger: Ledger
    beliefs: Beliefs

    def checkout(self, name: str) -> Checkout:
        return next(each for each in self.ledger.checkouts if each.key == name)

    def told_again(self, name: str, told: Told) -> None:
        self.checkout(name).told.append(told)


def order(name: str, status: str, quantity: int) -> dict[str, Any]:
    return {
        "id": name,
        "user_id": f"user of {name}",
        "status": status,
        "total": {"amount_minor": quantity * PRICE_MINOR},
        "lines": [{"product_id": "lamp", "quantity": quantity}],
    }


def truth() -> World:
    """A sold order, one shipped and refunded in part, one cancelled, one declined, one short of stock."""
    beliefs = Beliefs()
    ledger = Ledger(on_shelf={"lamp": ON_SHELF})
    sold = 0
    for name, quantity, status, told, captured, refunded, reservation in (
        ("sold", 2, "confirmed", 201, True, 0, "committed"),
        ("shipped", 1, "shipped", 201, True, 100, "committed"),
        ("cancelled", 3, "cancelled", 201, True, 3 * PRICE_MINOR, "released"),
        ("declined", 4, "rejected", 402, False, 0, "released"),
        ("short", 5, "rejected", 409, None, 0, None),
    ):
        total_minor = quantity * PRICE_MINOR
        beliefs.orders[name] = order(name, status, quantity)
        if captured is not None:
            beliefs.payments[name] = {
                "captured_minor": total_minor if captured else 0,
                "refunded_minor": refunded,
            }
        if reservation is not None:
            beliefs.reservations[name] = {"status": reservation}
        sold += quantity if status in {"confirmed", "shipped"} else 0
        answers = [Told(202, name), Told(told, name, total_minor if told == 201 else None)]
        ledger.checkouts.append(
            Checkout(f"user of {name}", name, [("lamp", quantity)], answers, 2, status, status == "cancelled")
        )
    ledger.refunded_minor["shipped"] = 100
    beliefs.stock["lamp"] = {"on_hand": ON_SHELF - sold, "reserved": 0}
    return World(ledger, beliefs)


def test_the_truth_is_no_disagreement() -> None:
    world = truth()
    assert disagreements(world.ledger, world.beliefs) == []


def beliefs_change(what: str, name: str, **changed: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        getattr(world.beliefs, what)[name].update(changed)

    return change


def forget(what: str, name: str) -> Callable[[World], None]:
    return lambda world: getattr(world.beliefs, what).pop(name)


def captured_twice(world: World) -> None:
    world.beliefs.payments["sold"]["captured_minor"] *= 2


def order_made_twice(world: World) -> None:
    world.beliefs.orders["again"] = order("again", "confirmed", 2)


def two_keys_one_order(world: World) -> None:
    world.ledger.checkouts.append(deepcopy(world.checkout("sold")))


def sent_and_never_ended(world: World) -> None:
    world.checkout("declined").told[:] = [Told(202, "declined")]


def hidden_refund(world: World) -> None:
    world.ledger.refunded_minor.clear()


LIES: dict[str, tuple[Callable[[World], None], str]] = {
    "a sold order is lost": (forget("orders", "sold"), "told of the order sold, which is not there"),
    "a sold order is rejected": (
        beliefs_change("orders", "sold", status="rejected"),
        "told confirmed and its order is",
    ),
    "a sold order is cancelled": (
        beliefs_change("orders", "sold", status="cancelled"),
        "told confirmed and its order is cancelled",
    ),
    "a cancelled order is sold": (
        beliefs_change("orders", "cancelled", status="confirmed"),
        "told cancelled and its order is confirmed",
    ),
    "an order is another user's": (beliefs_change("orders", "sold", user_id="thief"), "is another user's"),
    "another total": (beliefs_change("orders", "sold", total={"amount_minor": 1}), "told a total of 1000, and it is 1"),
    "other lines": (
        beliefs_change("orders", "sold", lines=[{"product_id": "lamp", "quantity": 1}]),
        "the order is of {'lamp': 1}",
    ),
    "not captured": (beliefs_change("payments", "sold", captured_minor=0), "0 was captured for a total of 1000"),
    "no payment": (forget("payments", "sold"), "None was captured for a total of 1000"),
    "captured twice": (captured_twice, "2000 was captured for a total of 1000"),
    "a cancelled order keeps money": (
        beliefs_change("payments", "cancelled", refunded_minor=1499),
        "was cancelled, and 1499 of 1500 given back",
    ),
    "a cancelled order keeps stock": (
        beliefs_change("reservations", "cancelled", status="committed"),
        "was cancelled, and its stock is committed",
    ),
    "a declined card pays": (
        beliefs_change("payments", "declined", captured_minor=2000),
        "was refused, and 2000 is captured for it",
    ),
    "a declined order holds stock": (
        beliefs_change("reservations", "declined", status="held"),
        "was refused, and stock is held for it",
    ),
    "a declined order is confirmed": (
        beliefs_change("orders", "declined", status="confirmed"),
        "was refused with 402 and its order is confirmed",
    ),
    "what a read showed is not so": (
        beliefs_change("orders", "shipped", status="delivered"),
        "a read showed shipped, and the order is delivered",
    ),
    "one key is told two ends": (
        lambda world: world.told_again("declined", Told(201, "declined", 2000)),
        "was told several ends",
    ),
    "one key has two orders": (lambda world: world.told_again("sold", Told(202, "other")), "has 2 orders"),
    "a key never came to an end": (sent_and_never_ended, "was sent 2 times and came to no end"),
    "an order is made twice": (order_made_twice, "the order again exists, and nobody was told of it"),
    "two keys have one order": (two_keys_one_order, "the order sold was told to 2 keys"),
    "a unit is lost": (
        beliefs_change("stock", "lamp", on_hand=96),
        "of 100 units of lamp the clients were sold 3, and 96 are left",
    ),
    "a unit is made": (beliefs_change("stock", "lamp", on_hand=98), "and 98 are left"),
    "a unit stays reserved": (beliefs_change("stock", "lamp", reserved=1), "1 reserved"),
    "a refund nobody was told of": (
        hidden_refund,
        "the clients were told that they paid 1500 in all, and 1400 is kept",
    ),
    "a refund that is not there": (
        beliefs_change("payments", "shipped", refunded_minor=0),
        "100 of the order shipped was said to be given back",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found(lie: str) -> None:
    plant, words = LIES[lie]
    world = truth()
    plant(world)
    found = disagreements(world.ledger, world.beliefs)
    assert any(re.search(re.escape(words), line) for line in found), found
