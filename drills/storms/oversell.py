"""Five hundred buyers at once for a hundred units, over three order processes and three product processes."""

import asyncio
from collections import Counter

from drills.shoppers import Shopper, wanted
from drills.stage import Drill, Stage, processes

BUYERS = 500
UNITS = 100
AT_ONCE = 32
"""How many sign in at a time; then all of them buy together."""


async def run(stage: Stage) -> None:
    """Sign everybody in, and let all of them buy the same product in the same moment."""
    (product_id,) = await stage.stock(1, UNITS, "SCARCE")
    shoppers = [Shopper(stage.floor, number) for number in range(BUYERS)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def enter(shopper: Shopper) -> None:
        async with gate:
            await shopper.sign_in()

    await asyncio.gather(*(enter(shopper) for shopper in shoppers))
    items = [(product_id, 1)]
    with stage.harm(f"{BUYERS} buyers at once for {UNITS} units"):
        checkouts = await asyncio.gather(
            *(shopper.buy(items, {"items": wanted(items)}, method="tok_visa") for shopper in shoppers)
        )
    ends = Counter(told.status for checkout in checkouts for told in checkout.outcomes)
    stage.promise(
        f"exactly {UNITS} are confirmed, everybody else is told that there is no more",
        f"{ends[201]} confirmed, {ends[409]} refused",
        ends == {201: UNITS, 409: BUYERS - UNITS},
    )


OVERSELL = Drill(
    "oversell",
    "Five hundred buyers at once for a hundred units, over three replicas: exactly a hundred are sold.",
    0,
    run,
    processes(),
)
