"""The admin's corner: what is on the shelves, what has to be shipped, what is paid back."""

import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Come
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import PASSWORD, Visitor


@pytest.fixture
async def admin(come: Come, shopkeeper: Shopkeeper) -> Visitor:
    """The admin, signed in."""
    visitor = await come()
    await visitor.sign_in(shopkeeper.email, shopkeeper.password)
    return visitor


async def test_a_product_is_made_stocked_sold_and_retired(admin: Visitor, come: Come) -> None:
    page, sku = admin.page, f"A-{uuid4().hex[:10]}"
    await admin.go("/admin/products/new")
    await admin.fill(
        sku=sku, name="Brass bell", price="12.50", category="bells", description="Rings.", tags="brass, loud",
        attributes="colour: gold\nweight: 200 g",
    )  # fmt: skip
    await admin.send("/admin/products/new")
    await expect(page).to_have_url(re.compile(r"/admin/products/[0-9a-f-]{36}"))
    product_id = admin.path.rpartition("/")[2]
    await admin.fill(delta="7", reason="received")
    await admin.send(f"/admin/products/{product_id}/stock")
    await expect(page.locator("main")).to_contain_text("7 available")
    await admin.fill(price="13.75")
    await admin.send(f"/admin/products/{product_id}")
    await expect(page.locator("main [name=price]")).to_have_value("13.75")
    buyer = await come()
    await buyer.go(f"/products/{product_id}")
    await expect(buyer.page.locator("data.price")).to_have_attribute("value", "1375")
    await expect(buyer.page.locator("dl.details")).to_contain_text("gold")
    await page.locator(f"form[action='/admin/products/{product_id}/retire'] button").click()
    await expect(page).to_have_url(re.compile("/admin"))
    assert await buyer.go(f"/products/{product_id}") == 404


async def test_a_product_that_somebody_else_changed_is_not_overwritten(admin: Visitor, shopkeeper: Shopkeeper) -> None:
    product = await shopkeeper.product()
    await admin.go(f"/admin/products/{product['id']}")
    await shopkeeper.reprice(product["id"], 4200)
    await admin.fill(name="Another name")
    await admin.send(f"/admin/products/{product['id']}")
    await expect(admin.page.get_by_role("alert")).to_contain_text("meanwhile")
    await expect(admin.page.locator("main [name=price]")).to_have_value("42.00")


async def test_what_is_wrong_with_a_product_is_said_at_its_field(admin: Visitor, shopkeeper: Shopkeeper) -> None:
    taken = (await shopkeeper.product())["sku"]
    await admin.go("/admin/products/new")
    await admin.fill(sku=taken, name="Bell", price="a lot", category="Bells and more")
    await admin.send("/admin/products/new")
    await expect(admin.page.locator("main [name=price]")).to_have_attribute("aria-invalid", "true")
    await admin.fill(price="1.00", category="bells")
    await admin.send("/admin/products/new")
    await expect(admin.page.locator("main [name=sku]")).to_have_attribute("aria-invalid", "true")


async def test_an_import_says_what_came_of_each_line(admin: Visitor, tmp_path: Path) -> None:
    sku = f"I-{uuid4().hex[:10]}"
    lines = [
        {"sku": sku, "name": "Imported bell", "category": "bells", "price_minor": 500, "currency": "USD", "on_hand": 3},
        {"sku": f"{sku}-2", "name": "", "category": "bells", "price_minor": 500, "currency": "USD"},
    ]
    file = tmp_path / "bells.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    await admin.go("/admin/import")
    await admin.page.locator("#file").set_input_files(file)
    await admin.page.locator("#import button").click()
    result = admin.page.locator("#import-result")
    await expect(result).to_contain_text("1 created")
    await expect(result).to_contain_text("1 rejected")
    await expect(result.locator("tbody tr")).to_have_count(1)
    await expect(result.locator("tbody tr td").first).to_have_text("2")


async def test_an_import_of_many_shows_how_far_it_is(admin: Visitor, tmp_path: Path) -> None:
    mark = uuid4().hex[:10]
    file = tmp_path / "many.csv"
    rows = (f"{mark}-{number},Bell {number},bells,500,USD\n" for number in range(20_000))
    file.write_text("sku,name,category,price_minor,currency\n" + "".join(rows))
    await admin.go("/admin/import")
    await admin.page.locator("#file").set_input_files(file)
    await admin.page.locator("#import button").click()
    await expect(admin.page.locator("#import-progress")).to_be_visible()
    await expect(admin.page.locator("#import-result")).to_contain_text("20,000 created", timeout=60_000)


async def test_an_order_is_shipped_and_delivered_and_paid_back_in_parts(
    admin: Visitor, come: Come, shopkeeper: Shopkeeper
) -> None:
    kettle = await shopkeeper.product()
    buyer = await come()
    await buyer.register()
    path = await buyer.buy(kettle["id"])
    await admin.go("/admin/orders")
    await admin.page.locator(f"a[href='/admin{path}']").click()
    await admin.send(f"/admin{path}/ship")
    await expect(admin.page.locator("#order .badge")).to_contain_text("On its way")
    await admin.send(f"/admin{path}/deliver")
    await expect(admin.page.locator("#order .badge")).to_contain_text("Delivered")
    await admin.fill(amount="5.00", reason="a dent")
    await admin.page.get_by_role("button", name="Pay it back").click()
    await expect(admin.page.locator("#order")).to_contain_text("Partly paid back")
    await admin.fill(amount="100", reason="too much")
    await admin.page.get_by_role("button", name="Pay it back").click()
    await expect(admin.page.locator("main [name=amount]")).to_have_attribute("aria-invalid", "true")
    await admin.fill(amount="", reason="the rest")
    await admin.page.get_by_role("button", name="Pay it back").click()
    await expect(admin.page.locator("#order")).to_contain_text("Paid back")
    await expect(admin.page.get_by_role("button", name="Pay it back")).to_have_count(0)
    await buyer.go(path)
    await expect(buyer.page.locator("#order")).to_contain_text("Paid back")


async def test_the_list_of_orders_to_ship_is_everybody_s(admin: Visitor, come: Come, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product()
    paths: list[str] = []
    for _ in range(2):
        buyer = await come()
        await buyer.register()
        paths.append(await buyer.buy(kettle["id"]))
    await admin.go("/admin/orders")
    for path in paths:
        await expect(admin.page.locator(f"a[href='/admin{path}']")).to_have_count(1)
    await admin.page.locator(f"form[action='/admin{paths[0]}/ship'] button").click()
    await admin.go("/admin/orders")
    await expect(admin.page.locator(f"a[href='/admin{paths[0]}']")).to_have_count(0)
    await expect(admin.page.locator(f"a[href='/admin{paths[1]}']")).to_have_count(1)


async def test_a_customer_is_not_let_in(come: Come) -> None:
    visitor = await come()
    await visitor.register()
    for path in ("/admin", "/admin/products/new", "/admin/import", "/admin/orders"):
        assert await visitor.go(path) == 403, path
        assert PASSWORD not in await visitor.page.content()
