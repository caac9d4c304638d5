"""The whole purchase, as a customer makes it."""

import re
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import expect

from services.storefront.routes.checkout import PAYMENT_METHODS
from tests.browser.conftest import Come
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import PASSWORD, Visitor

DECLINED = sorted(method for method in PAYMENT_METHODS if method.removeprefix("tok_") in {
    "declined", "insufficient_funds", "expired_card"
})  # fmt: skip
TAKEN = sorted(PAYMENT_METHODS.keys() - set(DECLINED))


async def test_a_search_finds_while_it_is_typed(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await shopkeeper.product(name="Samovar of brass")
    await shopkeeper.product(name="Samovar of silver")
    await visitor.go("/")
    await visitor.page.locator("#q").press_sequentially("samovar")
    await expect(visitor.page.locator("#grid .card")).to_have_count(2)
    await expect(visitor.page.locator("#grid")).to_contain_text("Samovar of silver")
    await expect(visitor.page).to_have_url(re.compile(r"[?&]q=samovar"))
    await expect(visitor.page.locator("#q")).to_be_focused()
    await visitor.page.reload()
    await expect(visitor.page.locator("#grid .card")).to_have_count(2)


async def test_filters_and_categories_keep_the_words_that_were_typed(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    word = f"word{uuid4().hex[:8]}"
    cheap = await shopkeeper.product(name=f"Kettle {word}", category=word, price_minor=500)
    await shopkeeper.product(name=f"Urn {word}", category=word, price_minor=9000)
    await visitor.go("/")
    await visitor.page.locator("#q").press_sequentially(word)
    cards = visitor.page.locator("#grid .card a")
    await expect(cards).to_have_count(2)
    await expect(visitor.page).to_have_title(re.compile(word))
    await visitor.page.locator("#filters summary").click()
    await visitor.page.locator("#max_price").fill("10")
    await visitor.page.locator("#filter-form button").click()
    await expect(cards).to_have_count(1)
    await expect(cards.first).to_have_attribute("href", f"/products/{cheap['id']}")
    await visitor.page.locator("#max_price").fill("")
    await visitor.page.locator("#max_price").blur()
    await expect(cards).to_have_count(2)
    await visitor.page.locator(f".categories a[href*='category={word}']").click()
    await expect(visitor.page.locator("#q")).to_have_value(word)
    await expect(cards).to_have_count(2)


async def test_a_search_that_finds_nothing_says_so(visitor: Visitor) -> None:
    await visitor.go("/?q=no-such-thing-anywhere")
    await expect(visitor.page.locator("#results")).to_contain_text("Nothing matches")


async def test_a_category_holds_its_own_things_only(visitor: Visitor) -> None:
    await visitor.go("/")
    link = visitor.page.locator(".categories a", has_text=re.compile("Kitchen", re.IGNORECASE)).first
    many = int(re.findall(r"\d+", await link.inner_text())[-1])
    await link.click()
    await expect(visitor.page).to_have_url(re.compile("category="))
    await expect(visitor.page.locator("#grid .card")).to_have_count(min(many, 24))
    await expect(visitor.page.locator(".categories [aria-current=page]")).to_have_count(1)


async def test_prices_are_filtered_and_sorted(visitor: Visitor) -> None:
    await visitor.go("/")
    await visitor.page.locator("#filters summary").click()
    await visitor.page.locator("#sort").select_option("price")
    await visitor.page.locator("#min_price").fill("10")
    await visitor.page.locator("#max_price").fill("20")
    await visitor.page.locator("#filter-form button").click()
    await expect(visitor.page).to_have_url(re.compile("max_price=20"))
    prices = [int(value or 0) for value in await prices_shown(visitor)]
    assert prices
    assert prices == sorted(prices)
    assert 1000 <= prices[0] <= prices[-1] <= 2000


async def prices_shown(visitor: Visitor) -> list[str | None]:
    """The prices on the shelves, in minor units."""
    return [await price.get_attribute("value") for price in await visitor.page.locator("#grid data.price").all()]


async def test_more_products_come_when_the_end_is_near_and_the_place_is_kept(visitor: Visitor) -> None:
    await visitor.go("/")
    cards = visitor.page.locator("#grid .card")
    first = await cards.count()
    await visitor.page.locator("#more").scroll_into_view_if_needed()
    await expect(cards.nth(first + 1)).to_be_attached()
    seen = await cards.evaluate_all("cards => cards.map((card) => card.querySelector('a').href)")
    assert len(set(seen)) == len(seen), "nothing twice"
    chosen = cards.nth(first + 1).locator("a")
    await chosen.scroll_into_view_if_needed()
    address = await chosen.get_attribute("href") or ""
    await chosen.click()
    await expect(visitor.page).to_have_url(re.compile(re.escape(address)))
    await visitor.page.go_back()
    again = visitor.page.locator(f"#grid a[href='{address}']")
    await expect(again).to_be_in_viewport()


async def test_a_visitor_s_cart_comes_along_when_they_register(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle, lamp = await shopkeeper.product(name="Kettle"), await shopkeeper.product(name="Lamp", price_minor=500)
    await visitor.put_in_cart(kettle["id"], 2)
    await visitor.put_in_cart(lamp["id"])
    await visitor.go("/cart")
    await expect(visitor.page.locator(".lines .line")).to_have_count(2)
    await expect(visitor.page.locator(".sum data.price")).to_have_attribute("value", str(2 * 1999 + 500))
    await visitor.page.locator(".sum a[href='/checkout']").click()
    await expect(visitor.page).to_have_url(re.compile("/sign-in"))
    await visitor.page.get_by_role("link", name="Open an account").click()
    await visitor.fill(name="Ada Lovelace", email=visitor.email, password=PASSWORD)
    await visitor.send("/register")
    await expect(visitor.page).to_have_url(re.compile("/checkout$"))
    assert "souk_cart" not in await visitor.cookies()
    await expect(visitor.page.locator(".sum data.price")).to_have_attribute("value", str(2 * 1999 + 500))


async def test_carts_are_added_up_when_somebody_signs_in(visitor: Visitor, come: Come, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product(stock=200)
    await visitor.register()
    await visitor.put_in_cart(kettle["id"], 60)
    elsewhere = await come()
    await elsewhere.put_in_cart(kettle["id"], 70)
    await elsewhere.sign_in(visitor.email, PASSWORD)
    await elsewhere.go("/cart")
    await expect(elsewhere.page.locator(".line input[name=quantity]")).to_have_value("99")


async def test_a_cart_is_changed_and_emptied(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle, lamp = await shopkeeper.product(), await shopkeeper.product(price_minor=500)
    await visitor.put_in_cart(kettle["id"])
    await visitor.put_in_cart(lamp["id"])
    await visitor.go("/cart")
    form = f"/cart/items/{kettle['id']}"
    await visitor.page.locator(f"form[action='{form}'] [name=quantity]").fill("3")
    await visitor.send(form)
    await expect(visitor.page.locator(".sum data.price")).to_have_attribute("value", str(3 * 1999 + 500))
    await visitor.send(form, button="[name=remove]")
    await expect(visitor.page.locator(".sum data.price")).to_have_attribute("value", "500")
    await visitor.send(f"/cart/items/{lamp['id']}", button="[name=remove]")
    await expect(visitor.page.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("method", TAKEN)
async def test_a_purchase_by_each_way_to_pay(visitor: Visitor, shopkeeper: Shopkeeper, method: str) -> None:
    kettle = await shopkeeper.product(stock=5)
    await visitor.register()
    await visitor.buy(kettle["id"], method, 2)
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Confirmed", timeout=30_000)
    await expect(visitor.page.locator("#order")).to_contain_text("Paid")
    (order,) = await shopkeeper.orders_of(visitor.email, PASSWORD)
    assert order["total"]["amount_minor"] == 2 * 1999
    assert await shopkeeper.on_hand(kettle["id"]) == 3
    await visitor.go("/cart")
    await expect(visitor.page.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("method", DECLINED)
async def test_a_declined_payment_is_said_where_they_stand_and_one_button_goes_on(
    visitor: Visitor, shopkeeper: Shopkeeper, method: str
) -> None:
    kettle = await shopkeeper.product(stock=5)
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.fill_checkout(method)
    await visitor.send("/checkout")
    problem = visitor.page.get_by_role("alert")
    await expect(problem).to_contain_text("Nothing was charged")
    await expect(problem).to_be_focused()
    await expect(visitor.page.locator("[name=line1]")).to_have_value("12 St James Square")
    await visitor.choose("payment_method", "tok_visa")
    await visitor.send("/checkout")
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    assert sorted(each["status"] for each in await shopkeeper.orders_of(visitor.email, PASSWORD)) == [
        "confirmed", "rejected"
    ]  # fmt: skip


async def test_what_is_wrong_with_an_address_is_said_at_its_field(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product()
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.fill_checkout()
    await visitor.fill(country="ZZ")
    await visitor.send("/checkout")
    wrong = visitor.page.locator("[name=country]")
    await expect(wrong).to_have_attribute("aria-invalid", "true")
    described = (await wrong.get_attribute("aria-describedby") or "").split()
    assert await visitor.page.locator(f"#{described[0]}").is_visible()
    await expect(visitor.page.get_by_role("alert")).to_be_focused()
    await expect(visitor.page.locator("[name=line1]")).to_have_value("12 St James Square")


async def test_an_order_is_cancelled_and_the_money_comes_back(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product(stock=5)
    await visitor.register()
    path = await visitor.buy(kettle["id"])
    await visitor.send(f"{path}/cancel")
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Cancelled")
    await expect(visitor.page.locator("#order")).to_contain_text("Paid back")
    assert await shopkeeper.on_hand(kettle["id"]) == 5
    await visitor.go("/orders?status=cancelled")
    await expect(visitor.page.locator(f"a[href='{path}']")).to_be_visible()


async def test_an_order_s_page_changes_while_it_is_looked_at(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product()
    await visitor.register()
    path = await visitor.buy(kettle["id"])
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Confirmed")
    await shopkeeper.call("POST", f"/api/v1{path}/ship", 200)
    await expect(visitor.page.locator("#order .badge")).to_contain_text("On its way")
    await expect(visitor.page.locator("#cancel")).to_have_count(0)
    await shopkeeper.call("POST", f"/api/v1{path}/deliver", 200)
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Delivered")
    await expect(visitor.page.locator(".history li")).to_have_count(6)


async def test_the_history_has_every_order_and_opens_it(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product(name="A kettle of its own")
    await visitor.register()
    await visitor.go("/orders")
    await expect(visitor.page.locator(".empty")).to_be_visible()
    paths = [await visitor.buy(kettle["id"]) for _ in range(2)]
    await visitor.go("/orders")
    assert [await link.get_attribute("href") for link in await visitor.page.locator(".orders a").all()] == paths[::-1]
    await visitor.page.locator(".orders a").first.click()
    await expect(visitor.page).to_have_url(re.compile(paths[1]))


async def test_a_saved_address_is_chosen_changed_and_removed(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product()
    await visitor.register()
    await visitor.go("/account")
    await visitor.page.get_by_text("Add an address").click()
    form = visitor.page.locator("form[action='/account/addresses']")
    address: dict[str, Any] = {
        "name": "Ada",
        "line1": "1 Engine Row",
        "postal_code": "N1",
        "city": "London",
        "country": "GB",
    }
    for name, value in address.items():
        await form.locator(f"[name={name}]").fill(value)
    await visitor.send("/account/addresses")
    await expect(visitor.page.locator("main")).to_contain_text("1 Engine Row")
    await visitor.put_in_cart(kettle["id"])
    await visitor.go("/checkout")
    await visitor.send("/checkout")
    await expect(visitor.page.locator("#order address")).to_contain_text("1 Engine Row")
    await visitor.go("/account")
    await visitor.page.get_by_role("link", name="Change 1 Engine Row").click()
    await visitor.fill(line1="2 Engine Row")
    await visitor.page.locator("main form button:not([name=remove])").first.click()
    await expect(visitor.page.locator("main")).to_contain_text("2 Engine Row")
    await visitor.page.get_by_role("link", name="Change 2 Engine Row").click()
    await visitor.page.locator("[name=remove]").click()
    await expect(visitor.page.locator("main")).not_to_contain_text("Engine Row")


async def test_signing_out_takes_everything_along(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.go("/account")
    await visitor.send("/sign-out")
    await expect(visitor.page.get_by_role("link", name="Sign in")).to_be_visible()
    assert await visitor.cookies() == {}
    await visitor.go("/orders")
    await expect(visitor.page).to_have_url(re.compile("/sign-in"))


async def test_a_wrong_password_is_said_and_a_taken_e_mail(visitor: Visitor, come: Come) -> None:
    await visitor.register()
    other = await come()
    await other.go("/sign-in")
    await other.fill(email=visitor.email, password="not this one")
    await other.send("/sign-in")
    await expect(other.page.get_by_role("alert")).to_contain_text("do not belong together")
    await expect(other.page.locator("main [name=email]")).to_have_value(visitor.email)
    await other.go("/register")
    await other.fill(name="Ada", email=visitor.email, password=PASSWORD)
    await other.send("/register")
    await expect(other.page.locator("main [name=email]")).to_have_attribute("aria-invalid", "true")


async def test_no_script_can_read_what_signs_them_in(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.go("/")
    kept = await visitor.cookies()
    for name in ("souk_access", "souk_refresh"):
        assert kept[name]["httpOnly"]
        assert kept[name]["sameSite"] == "Lax"
    for secret in (kept["souk_access"]["value"], kept["souk_refresh"]["value"]):
        readable = "document.cookie + JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})"
        assert secret not in await visitor.page.evaluate(readable)
        assert secret not in await visitor.page.content()
