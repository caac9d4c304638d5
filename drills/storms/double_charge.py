"""One idempotency key, fifty times at once, over three order processes, half of the answers lost."""

import asyncio
from collections import Counter
from itertools import cycle, islice
from uuid import uuid4

from drills.oracle import Checkout
from drills.shoppers import ADDRESS, Shopper, wanted
from drills.stage import Drill, Stage, processes

TIMES = 50
METHODS = ("tok_visa", "tok_slow", "tok_timeout", "tok_declined")
ENDS = {"tok_declined": 402}
"""How a checkout ends by its payment method; 201 where it is not here."""


async def run(stage: Stage) -> None:
    """Send each key fifty times at once, and again until it has an outcome."""
    shopper = Shopper(stage.floor, 0)
    await shopper.sign_in()
    rounds = 8 if stage.length.full else len(METHODS)
    answers: Counter[str] = Counter()
    with stage.harm(f"{rounds} keys, each sent {TIMES} times at once, every other answer lost"):
        for number, method in enumerate(islice(cycle(METHODS), rounds)):
            items = [(stage.floor.product_ids[number], 2)]
            checkout = Checkout(shopper.user_id, uuid4().hex, items)
            stage.floor.ledger.checkouts.append(checkout)
            answers += await _charge(shopper, checkout, method)
            ends = {each.status for each in checkout.outcomes}
            wanted_end = ENDS.get(method, 201)
            stage.promise(f"{method}: one answer", f"{len(checkout.outcomes)}: {ends}", ends == {wanted_end})
    stage.promise("answers came and were lost", f"{dict(answers)}", answers["lost"] > 0 and answers["kept"] > 0)


async def _charge(shopper: Shopper, checkout: Checkout, method: str) -> Counter[str]:
    body = {"items": wanted(checkout.items), "address": ADDRESS, "payment_method": method}
    await asyncio.gather(*(shopper.ask(checkout, body, lose_reply=bool(number % 2)) for number in range(TIMES)))
    await shopper.insist_on(checkout, {"items": wanted(checkout.items)}, method=method)
    return Counter({"lost": TIMES // 2, "kept": checkout.sent - TIMES // 2})


DOUBLE_CHARGE = Drill(
    "double-charge",
    "One key sent fifty times at once over three replicas, half of the answers lost: one order, one capture.",
    0,
    run,
    processes(),
)
