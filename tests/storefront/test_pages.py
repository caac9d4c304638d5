"""What every page carries, and what none does."""

import re
from http.cookies import SimpleCookie
from uuid import UUID

import httpx2
import pytest

from local.edge import STOREFRONT
from services.storefront.pages import POLICY
from tests.contract.shopping import PASSWORD, Catalogue, Customer, unique_email, unique_word
from tests.shop import Shop
from tests.storefront.reader import Page, Reader

SCRIPT = "<script>alert(1)</script>"
EVENT = re.compile(r"^on\w+$")


@pytest.mark.parametrize("path", ["/", "/cart", "/sign-in", "/register", "/nowhere", "/products/nonsense"])
def test_a_page_allows_what_this_origin_serves_and_nothing_else(reader: Reader, path: str) -> None:
    page = reader.get(path)
    assert page.answer.headers["content-security-policy"] == POLICY
    assert page.answer.headers["x-content-type-options"] == "nosniff"
    for tag, given in page.tags:
        assert not any(EVENT.match(name) or name == "style" for name in given), (tag, given)
        assert tag != "style"
        for link in ("src", "action") if tag != "a" else ("href",):
            assert given.get(link, "/").startswith(("/", "#")), (tag, given)
        assert tag != "script" or given["src"].startswith("/static/")


def test_a_page_that_is_as_it_was_is_not_sent_again(reader: Reader) -> None:
    first = reader.get("/sign-in")
    again = reader.get("/sign-in", headers={"If-None-Match": first.answer.headers["etag"]})
    assert (again.status, again.answer.content) == (304, b"")
    assert reader.get("/sign-in", headers={"If-None-Match": '"another"'}).status == 200


def test_static_files_are_kept_for_ever_under_the_digest_of_their_content(reader: Reader) -> None:
    page = reader.get("/")
    names = [given.get("src") or given["href"] for tag, given in page.tags if tag in {"script", "link"}]
    for name in (name for name in names if name.startswith("/static/")):
        answer = reader.client.get(name)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        for imported in re.findall(r'from "(.+?)"', answer.text):
            assert reader.client.get(f"/static/{imported}").status_code == 200
        assert reader.client.get(re.sub(r"\.[0-9a-f]{10}\.", ".0000000000.", name)).status_code == 404
    assert reader.client.get("/static/../app.py").status_code == 404
    assert reader.client.get("/static/%2e%2e%2fapp.py").status_code == 404


def test_script_in_what_somebody_wrote_is_text(reader: Reader, catalogue: Catalogue) -> None:
    word = unique_word()
    product = catalogue.product(
        stock=1,
        name=f"{SCRIPT} {word}",
        description=SCRIPT,
        tags=[SCRIPT],
        attributes={SCRIPT: SCRIPT},
        image_url='/api/v1/products/pictures/"onerror="alert(1)',
    )
    for path in (
        f"/?q={word}",
        f"/products/{product.id}",
        f"/?q={SCRIPT}",
        f"/?category={SCRIPT}",
        f"/sign-in?next=/{SCRIPT}",
    ):
        answer = reader.get(path).answer
        assert SCRIPT not in answer.text
        assert not any(name.startswith("on") for _, given in reader.get(path).tags for name in given)


def test_a_picture_of_another_host_is_not_asked_for(reader: Reader, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=1, image_url="https://elsewhere.example/picture.png")
    page = reader.get(f"/products/{product.id}")
    assert "elsewhere.example" not in page.answer.text
    picture = reader.client.get(f"/pictures/{product.id}")
    assert picture.headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "next_page",
    [
        "//elsewhere.example",
        "https://elsewhere.example",
        "/\\elsewhere.example",
        "/\t\\elsewhere.example",
        "/\n/elsewhere.example",
        "x",
    ],
)
def test_signing_in_leads_to_no_other_site(reader: Reader, customer: Customer, next_page: str) -> None:
    between = reader.get("/session/renew", params={"next": next_page})
    assert between.form("/session/renew").fields["next"] == "/"
    page = reader.sign_in(customer.email, customer.password, next_page)
    assert (page.answer.url.host, page.path) == ("127.0.0.1", "/")


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://elsewhere.example"}],
)
def test_a_form_of_another_site_is_refused(signed_in: Reader, headers: dict[str, str]) -> None:
    answer = signed_in.client.post("/sign-out", headers=headers)
    assert answer.status_code == 403
    assert "That did not come from here" in answer.text
    assert signed_in.get("/account").path == "/account"


@pytest.mark.parametrize("proto", ["http", "https"])
def test_the_tokens_are_in_cookies_that_no_script_reads(shop: Shop, customer: Customer, proto: str) -> None:
    form = {"email": customer.email, "password": customer.password}
    answer = httpx2.post(f"{shop.services[STOREFRONT]}/sign-in", data=form, headers={"X-Forwarded-Proto": proto})
    assert answer.status_code == 303
    cookies = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        cookies.load(line)
    for name in ("souk_access", "souk_refresh", "souk_until"):
        assert cookies[name]["samesite"] == "lax"
        assert bool(cookies[name]["secure"]) == (proto == "https")
        assert bool(cookies[name]["httponly"]) == (name != "souk_until")


def test_a_page_with_a_token_that_ran_out_goes_on_where_it_was_meant_to(signed_in: Reader) -> None:
    signed_in.client.cookies.delete("souk_access")
    between = signed_in.get("/account")
    assert between.path == "/session/renew"
    page = signed_in.send(between.form("/session/renew"))
    assert page.path == "/account"
    assert signed_in.client.cookies["souk_access"]


def test_a_form_with_a_token_that_ran_out_loses_nothing(signed_in: Reader, customer: Customer) -> None:
    form = signed_in.get("/account").form("/account/name")
    signed_in.client.cookies.delete("souk_access")
    assert "Your name is changed" in signed_in.send(form, name="Countess").text
    assert customer.shop.me().expect(200).name == "Countess"


@pytest.mark.parametrize(
    "path", [f"/orders/{UUID(int=1)}/cancel", f"/cart/items/{UUID(int=1)}/add", "/admin/products/new"]
)
def test_what_is_refused_leaves_somebody_signed_in_whose_token_ran_out_on_the_way(signed_in: Reader, path: str) -> None:
    signed_in.client.cookies.delete("souk_access")
    assert signed_in.client.post(path, data={"quantity": "1"}).status_code in {403, 404}
    assert signed_in.client.cookies["souk_access"]
    signed_in.client.cookies.delete("souk_access")
    page = signed_in.send(signed_in.get("/account").form("/session/renew"))
    assert page.path == "/account", "the token that was replaced was sent again"


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/account/name", "/account"),
        ("/account/addresses", "/account"),
        (f"/orders/{UUID(int=1)}/cancel", f"/orders/{UUID(int=1)}"),
        ("/checkout", "/cart"),
        ("/cart/without-marked", "/cart"),
        (f"/cart/items/{UUID(int=1)}/add", "/cart"),
        ("/sign-out", "/"),
        (f"/admin/products/{UUID(int=1)}/stock", f"/admin/products/{UUID(int=1)}"),
        (f"/admin/orders/{UUID(int=1)}/payments/{UUID(int=2)}/refund", f"/admin/orders/{UUID(int=1)}"),
    ],
)
def test_where_a_form_is_sent_to_leads_to_its_page(signed_in: Reader, path: str, page: str) -> None:
    assert signed_in.get(path).path == page


@pytest.mark.parametrize("path", ["/account/name", "/account/password", "/checkout", f"/orders/{UUID(int=1)}/cancel"])
def test_a_form_that_is_sent_after_a_sign_in_ended_leads_back_to_its_page(
    reader: Reader, customer: Customer, path: str
) -> None:
    asked = Page(reader.client.post(path, data={"name": "Ada"}))
    assert asked.path == "/sign-in"
    page = reader.send(asked.form("/sign-in"), email=customer.email, password=customer.password)
    assert page.status == (404 if "/orders/" in path else 200)


def test_a_sign_in_that_ended_is_asked_for_again(signed_in: Reader) -> None:
    signed_in.client.cookies.delete("souk_access")
    signed_in.client.cookies.set("souk_refresh", "used-up", domain="127.0.0.1")
    between = signed_in.get("/account")
    assert signed_in.send(between.form("/session/renew")).path == "/sign-in"


def test_signing_out_ends_it_at_the_user_service_too(signed_in: Reader, shop: Shop) -> None:
    token = next(cookie.value for cookie in signed_in.client.cookies.jar if cookie.name == "souk_refresh")
    page = signed_in.send(signed_in.get("/account").form("/sign-out"))
    assert page.path == "/"
    assert signed_in.get("/account").path == "/sign-in"
    form = {"grant_type": "refresh_token", "refresh_token": token or ""}
    assert httpx2.post(f"{shop.origin}/api/v1/auth/token", data=form).status_code == 401


def test_an_account_that_exists_and_a_password_that_is_short_are_said_at_their_fields(
    reader: Reader, customer: Customer
) -> None:
    form = reader.get("/register").form("/register")
    page = reader.send(form, name="Ada", email=customer.email, password=PASSWORD)
    assert (page.status, "belongs to an account already" in page.text) == (422, True)
    assert page.form("/register").fields["email"] == customer.email
    page = reader.send(form, name="Ada", email=unique_email(), password="short")
    assert page.status == 422
    [wrong] = [given["name"] for tag, given in page.tags if tag == "input" and "aria-invalid" in given]
    assert wrong == "password"
    page = reader.sign_in(customer.email, "not the password")
    assert (page.status, "do not belong together" in page.text) == (422, True)


@pytest.mark.parametrize(
    ("language", "price"),
    [("en-US,en", "$19.99"), ("de-DE,de;q=0.9", "19,99\xa0$"), ("fr;q=0.1, ja", "$19.99"), ("*", "$19.99")],
)
def test_prices_are_written_as_the_browser_s_language_has_them(
    shop: Shop, catalogue: Catalogue, language: str, price: str
) -> None:
    product = catalogue.product(stock=1, price_minor=1999)
    reader = Reader(shop.origin, **{"Accept-Language": language})
    with reader.client:
        assert price in reader.get(f"/products/{product.id}").answer.text


def test_filters_that_cannot_be_are_said_and_the_shelves_stay(reader: Reader) -> None:
    page = reader.get("/", params={"min_price": "a lot"})
    assert "Lowest price must be an amount" in page.text
    assert reader.get("/", params={"cursor": "damaged"}).status == 200
    assert reader.get("/", params={"pages": "-3", "sort": "nonsense", "q": " "}).status == 200
    assert reader.get("/", params={"pages": "²"}).status == 200


@pytest.mark.parametrize("name", ["souk_access", "souk_refresh", "souk_cart", "souk_until"])
@pytest.mark.parametrize("value", [b"\xff", b"\xc3\xbc", b"a b", b'"', b"=" * 4000])
def test_a_damaged_cookie_is_as_none(shop: Shop, name: str, value: bytes) -> None:
    headers = [(b"cookie", name.encode() + b"=" + value)]
    answer = httpx2.get(f"{shop.services[STOREFRONT]}/cart", headers=headers, follow_redirects=True)
    assert (answer.status_code, "There is nothing in your cart" in answer.text) == (200, True)


def test_what_is_asked_for_in_the_address_is_shown_after_a_reload(reader: Reader, catalogue: Catalogue) -> None:
    for _ in range(45):
        catalogue.product()
    shown = reader.get("/", params={"category": catalogue.category})
    more = next(given for _, given in shown.tags if given.get("id") == "more")
    products = [link for link in shown.links if link.startswith("/products/")]
    following = [link for link in reader.get(more["href"]).links if link.startswith("/products/")]
    assert (len(products), len(following), len({*products, *following})) == (20, 20, 40)
    both = reader.get("/", params={"category": catalogue.category, "pages": "2"})
    assert [link for link in both.links if link.startswith("/products/")] == [*products, *following]


def test_a_demonstration_tells_who_answered_and_nobody_else_does(reader: Reader, catalogue: Catalogue) -> None:
    page = reader.get(f"/products/{catalogue.product().id}")
    assert "server-timing" not in page.answer.headers
    assert not any(given.get("id") == "strip" for _, given in page.tags)
