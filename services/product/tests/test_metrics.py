"""What the service tells of its stock: what reservations hold of it, read again and again while the service runs."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

from services.product.tests.conftest import Shop

WITHIN_S = 20


async def told(shop: Shop) -> dict[str, float]:
    """The series without labels, by name."""
    lines = [line.split() for line in (await shop.send("GET", "/metrics")).text.splitlines()]
    return {line[0]: float(line[1]) for line in lines if line[0] != "#" and "{" not in line[0]}


async def test_products_of_which_nearly_all_is_reserved(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    stock = shop.service.state.stock
    assert await stock.held() == (0, 0, 0)
    assert await stock.on_hand() == 0
    plenty = (await shop.product(20))["id"]
    scarce = (await shop.product(10))["id"]
    last = (await shop.product(1))["id"]
    await shop.product()  # of nothing nothing can be reserved
    assert await stock.on_hand() == 31
    first, second = uuid4(), uuid4()
    assert (await shop.reserve(first, (plenty, 17), (scarce, 8))).status_code == 200
    assert await stock.held() == (1, 25, 0)
    assert (await shop.reserve(second, (plenty, 1), (scarce, 1), (last, 1))).status_code == 200
    assert await stock.held() == (2, 28, 3), "18 of 20, 9 of 10 and 1 of 1"
    assert (await shop.commit(second)).status_code == 200
    assert await stock.held() == (1, 25, 0), "17 of 19 and 8 of 9"
    assert await stock.on_hand() == 28
    assert (await shop.release(first)).status_code == 204
    assert await stock.held() == (0, 0, 0)


async def test_the_gauges_follow_the_stock_while_the_service_runs(own_shop: Callable[..., Shop]) -> None:
    before = own_shop()
    product_id = (await before.product(10))["id"]
    assert (await before.reserve(uuid4(), (product_id, 9))).status_code == 200
    shop = own_shop()
    await shop.service.start()
    expected = {
        "souk_reservations_live": 1,
        "souk_stock_reserved_units": 9,
        "souk_products_nearly_reserved": 1,
        "souk_stock_on_hand_units": 10,
    }
    async with asyncio.timeout(WITHIN_S):
        while not expected.items() <= (await told(shop)).items():  # noqa: ASYNC110 - of a worker
            await asyncio.sleep(0.02)
    await shop.service.stop()
