"""What holds for every call: credentials, problems, limits of bodies, headers, ids, lists."""

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from tests.contract.client import SERVICES, Json, Storefront
from tests.contract.shopping import (
    ADDRESS,
    Catalogue,
    Customer,
    buy,
    ndjson,
    order_body,
    short,
    unique,
    unique_email,
    unique_key,
)

MEBIBYTE = 1024 * 1024
NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
PRODUCT: Json = {
    "sku": "NEVER-MADE",
    "name": "Kettle",
    "category": "never-made",
    "price": {"amount_minor": 1, "currency": "USD"},
}
NEEDS_CUSTOMER = [
    ("GET", "/api/v1/users/me", None),
    ("PATCH", "/api/v1/users/me", {"name": "Somebody"}),
    ("DELETE", "/api/v1/users/me", None),
    ("GET", "/api/v1/users/me/addresses", None),
    ("POST", "/api/v1/users/me/addresses", ADDRESS),
    ("PUT", f"/api/v1/users/me/addresses/{NOBODY}", ADDRESS),
    ("DELETE", f"/api/v1/users/me/addresses/{NOBODY}", None),
    ("GET", "/api/v1/cart", None),
    ("DELETE", "/api/v1/cart", None),
    ("PUT", f"/api/v1/cart/items/{NOBODY}", {"quantity": 1}),
    ("DELETE", f"/api/v1/cart/items/{NOBODY}", None),
    ("GET", "/api/v1/orders", None),
    (
        "POST",
        "/api/v1/orders",
        {
            "items": [{"product_id": NOBODY, "quantity": 1}],
            "address": ADDRESS,
            "payment_method": "tok_visa",
        },
    ),
    ("GET", f"/api/v1/orders/{NOBODY}", None),
    ("POST", f"/api/v1/orders/{NOBODY}/cancel", None),
    ("GET", f"/api/v1/orders/{NOBODY}/events", None),
    ("GET", "/api/v1/payments", None),
    ("GET", f"/api/v1/payments/{NOBODY}", None),
]
NEEDS_ADMIN = [
    ("GET", "/api/v1/users", None),
    ("POST", "/api/v1/products", PRODUCT),
    ("PATCH", f"/api/v1/products/{NOBODY}", {"name": "Kettle"}),
    ("DELETE", f"/api/v1/products/{NOBODY}", None),
    ("POST", f"/api/v1/products/{NOBODY}/stock", {"delta": 1, "reason": "received"}),
    ("POST", f"/api/v1/orders/{NOBODY}/ship", None),
    ("POST", f"/api/v1/orders/{NOBODY}/deliver", None),
    ("POST", f"/api/v1/payments/{NOBODY}/refund", {"amount_minor": 1, "reason": "goodwill"}),
]
NAMES_AN_ID = [
    ("GET", "/api/v1/products/{id}", None),
    ("PATCH", "/api/v1/products/{id}", {"name": "Kettle"}),
    ("DELETE", "/api/v1/products/{id}", None),
    ("POST", "/api/v1/products/{id}/stock", {"delta": 1, "reason": "received"}),
    ("PUT", "/api/v1/users/me/addresses/{id}", ADDRESS),
    ("DELETE", "/api/v1/users/me/addresses/{id}", None),
    ("PUT", "/api/v1/cart/items/{id}", {"quantity": 1}),
    ("GET", "/api/v1/orders/{id}", None),
    ("POST", "/api/v1/orders/{id}/cancel", None),
    ("POST", "/api/v1/orders/{id}/ship", None),
    ("POST", "/api/v1/orders/{id}/deliver", None),
    ("GET", "/api/v1/orders/{id}/events", None),
    ("GET", "/api/v1/payments/{id}", None),
    ("POST", "/api/v1/payments/{id}/refund", {"amount_minor": 1, "reason": "goodwill"}),
]
TAKES_JSON = [
    ("POST", "/api/v1/auth/register"),
    ("PATCH", "/api/v1/users/me"),
    ("POST", "/api/v1/users/me/addresses"),
    ("POST", "/api/v1/products"),
    ("POST", f"/api/v1/products/{NOBODY}/stock"),
    ("PUT", f"/api/v1/cart/items/{NOBODY}"),
    ("POST", "/api/v1/orders"),
    ("POST", f"/api/v1/payments/{NOBODY}/refund"),
]
LISTS = [
    "/api/v1/users",
    "/api/v1/users/me/addresses",
    "/api/v1/products",
    "/api/v1/orders",
    "/api/v1/payments",
]


def key_for(path: str) -> dict[str, str]:
    """Give the header that ordering cannot do without."""
    return {"Idempotency-Key": unique_key()} if path == "/api/v1/orders" else {}


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_CUSTOMER + NEEDS_ADMIN)
def test_without_a_token_is_401(anyone: Storefront, method: str, path: str, body: Json | None) -> None:
    answer = anyone.call(method, path, json=body, headers=key_for(path))
    answer.problem(401, "unauthenticated")
    assert "bearer" in answer.headers["www-authenticate"].lower()


def test_import_without_a_token_is_401(anyone: Storefront) -> None:
    anyone.import_products(ndjson({})).problem(401, "unauthenticated")


@pytest.mark.parametrize("credentials", ["Basic YWRhOmFkYQ==", "Bearer", "Bearer not.a.token", "x"])
@pytest.mark.parametrize("path", ["/api/v1/users/me", "/api/v1/cart", "/api/v1/orders", "/api/v1/payments"])
def test_bad_credentials_are_401(anyone: Storefront, path: str, credentials: str) -> None:
    anyone.call("GET", path, headers={"Authorization": credentials}).problem(401, "unauthenticated")


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_ADMIN)
def test_a_customer_lacks_the_role_of_admin(customer: Customer, method: str, path: str, body: Json | None) -> None:
    customer.shop.call(method, path, json=body).problem(403, "forbidden")


def test_a_customer_may_not_import(customer: Customer) -> None:
    customer.shop.import_products(ndjson({})).problem(403, "forbidden")


@pytest.mark.parametrize(("method", "path", "body"), NAMES_AN_ID)
def test_an_id_that_nothing_has_is_404(admin: Storefront, method: str, path: str, body: Json | None) -> None:
    admin.call(method, path.format(id=uuid4()), json=body).problem(404, "not-found")


@pytest.mark.parametrize("bad_id", ["1", "not-a-uuid", f"{NOBODY}0", NOBODY[:-1], "%00", "%F0%9F%AB%96"])
@pytest.mark.parametrize(("method", "path", "body"), [*NAMES_AN_ID, ("DELETE", "/api/v1/cart/items/{id}", None)])
def test_an_id_that_is_no_uuid_is_422(
    admin: Storefront, method: str, path: str, body: Json | None, bad_id: str
) -> None:
    admin.call(method, path.format(id=bad_id), json=body).invalid()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/auth/register", {"POST"}),
        ("DELETE", "/api/v1/auth/token", {"POST"}),
        ("PUT", "/api/v1/auth/revoke", {"POST"}),
        ("POST", "/api/v1/auth/jwks", {"GET"}),
        ("POST", "/api/v1/users/me", {"GET", "PATCH", "DELETE"}),
        ("DELETE", "/api/v1/users/me/addresses", {"GET", "POST"}),
        ("PATCH", f"/api/v1/users/me/addresses/{NOBODY}", {"PUT", "DELETE"}),
        ("POST", "/api/v1/users", {"GET"}),
        ("DELETE", "/api/v1/products", {"GET", "POST"}),
        ("POST", f"/api/v1/products/{NOBODY}", {"GET", "PATCH", "DELETE"}),
        ("PUT", f"/api/v1/products/{NOBODY}/stock", {"POST"}),
        ("POST", "/api/v1/categories", {"GET"}),
        ("PUT", "/api/v1/cart", {"GET", "DELETE"}),
        ("PATCH", f"/api/v1/cart/items/{NOBODY}", {"PUT", "DELETE"}),
        ("DELETE", "/api/v1/orders", {"GET", "POST"}),
        ("PATCH", f"/api/v1/orders/{NOBODY}", {"GET"}),
        ("PUT", f"/api/v1/orders/{NOBODY}/cancel", {"POST"}),
        ("PUT", f"/api/v1/orders/{NOBODY}/ship", {"POST"}),
        ("PUT", f"/api/v1/orders/{NOBODY}/deliver", {"POST"}),
        ("POST", f"/api/v1/orders/{NOBODY}/events", {"GET"}),
        ("POST", "/api/v1/payments", {"GET"}),
        ("DELETE", f"/api/v1/payments/{NOBODY}", {"GET"}),
        ("DELETE", f"/api/v1/payments/{NOBODY}/refund", {"POST"}),
    ],
)
def test_another_method_is_405_with_every_allowed_one(
    admin: Storefront, method: str, path: str, allowed: set[str]
) -> None:
    answer = admin.call(method, path)
    answer.problem(405, "method-not-allowed")
    named = {name.strip() for name in answer.headers["allow"].split(",")}
    assert named - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(("method", "path"), TAKES_JSON)
def test_another_content_type_than_json_is_415(admin: Storefront, method: str, path: str, content_type: str) -> None:
    headers = {"Content-Type": content_type, **key_for(path)}
    admin.call(method, path, content=b"{}", headers=headers).problem(415, "unsupported-media-type")


@pytest.mark.parametrize("path", ["/api/v1/auth/token", "/api/v1/auth/revoke"])
def test_a_form_sent_as_json_is_415(anyone: Storefront, path: str) -> None:
    anyone.call("POST", path, json={"token": "x"}).problem(415, "unsupported-media-type")


def test_a_content_type_may_name_its_charset(anyone: Storefront) -> None:
    body = {"email": unique_email(), "password": "long enough", "name": "Zoë"}
    answer = anyone.call(
        "POST",
        "/api/v1/auth/register",
        content=json.dumps(body, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert answer.expect(201)["name"] == "Zoë"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"name": NaN}',
        b"{'name': 'x'}",
        b'{"name": "x"} trailing',
        b'"\xff"',
        b"[]",
        b"1",
    ],
)
@pytest.mark.parametrize(("method", "path"), TAKES_JSON)
def test_a_body_that_is_no_json_object_is_422(admin: Storefront, method: str, path: str, content: bytes) -> None:
    headers = {"Content-Type": "application/json", **key_for(path)}
    admin.call(method, path, content=content, headers=headers).invalid()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/auth/register", {"email": "a@example.com", "password": "long enough", "name": "A"}),
        ("PATCH", "/api/v1/users/me", {}),
        ("POST", "/api/v1/users/me/addresses", ADDRESS),
        ("POST", "/api/v1/products", PRODUCT),
        ("PATCH", f"/api/v1/products/{NOBODY}", {}),
        ("POST", f"/api/v1/products/{NOBODY}/stock", {"delta": 1, "reason": "received"}),
        ("PUT", f"/api/v1/cart/items/{NOBODY}", {"quantity": 1}),
        (
            "POST",
            "/api/v1/orders",
            {
                "items": [{"product_id": NOBODY, "quantity": 1}],
                "address": ADDRESS,
                "payment_method": "tok_visa",
            },
        ),
        ("POST", f"/api/v1/payments/{NOBODY}/refund", {"amount_minor": 1, "reason": "goodwill"}),
    ],
)
def test_an_unknown_field_is_named(admin: Storefront, method: str, path: str, body: Json) -> None:
    admin.call(method, path, json={**body, "surprise": 1}, headers=key_for(path)).invalid("surprise")


@pytest.mark.parametrize(("method", "path"), TAKES_JSON)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_one_mebibyte_is_413(admin: Storefront, method: str, path: str, chunked: bool) -> None:
    content = b'{"name": "' + b"x" * MEBIBYTE + b'"}'

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    headers = {"Content-Type": "application/json", **key_for(path)}
    answer = admin.call(method, path, content=chunks() if chunked else content, headers=headers)
    answer.problem(413, "content-too-large")


def test_a_form_over_one_mebibyte_is_413(anyone: Storefront) -> None:
    anyone.revoke(token="x" * MEBIBYTE).problem(413, "content-too-large")


def test_a_body_of_one_mebibyte_is_taken(anyone: Storefront) -> None:
    body = json.dumps({"email": unique_email(), "password": "long enough", "name": "Ada"}).encode()
    anyone.call(
        "POST",
        "/api/v1/auth/register",
        content=body.ljust(MEBIBYTE),
        headers={"Content-Type": "application/json"},
    ).expect(201)


def test_white_space_in_json_does_not_matter(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=1)
    answer = customer.shop.call(
        "PUT",
        f"/api/v1/cart/items/{product.id}",
        content=b'\n\t{ "quantity"\r\n : 1 }  ',
        headers={"Content-Type": "application/json"},
    )
    assert answer.expect(200)["items"][0]["quantity"] == 1


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "abc", "1.5", "", "1000000000000000000000"])
def test_a_limit_out_of_range_is_422(admin: Storefront, path: str, limit: str) -> None:
    admin.call("GET", path, params={"limit": limit}).invalid("limit")


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 100])
def test_the_limits_of_a_limit_are_taken(admin: Storefront, path: str, limit: int) -> None:
    page = admin.call("GET", path, params={"limit": limit}).expect(200)
    assert isinstance(page["items"], list)
    assert "next_cursor" in page


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["garbage", "!", "é", "\0", "e30", "e30=", "x" * 5000, "0", "null"], ids=short)
def test_a_cursor_that_is_none_is_400(admin: Storefront, path: str, cursor: str) -> None:
    admin.call("GET", path, params={"cursor": cursor}).problem(400, "invalid-cursor")


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/products/{NOBODY}",
        "/api/v1/users/me",
        f"/api/v1/orders/{NOBODY}",
        f"/api/v1/payments/{NOBODY}",
    ],
)
def test_a_problem_joins_the_trace_that_it_was_given(anyone: Storefront, path: str) -> None:
    trace_id = unique()
    answer = anyone.call("GET", path, headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    code = "not-found" if "products" in path else "unauthenticated"
    assert answer.problem(answer.status, code).trace_id == trace_id


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{'A' * 32}-00f067aa0ba902b7-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"ff-{'a' * 32}-00f067aa0ba902b7-01",
        f"00-{'a' * 31}-00f067aa0ba902b7-01",
    ],
)
def test_a_damaged_traceparent_begins_a_trace_of_its_own(anyone: Storefront, traceparent: str) -> None:
    answer = anyone.call("GET", f"/api/v1/products/{NOBODY}", headers={"traceparent": traceparent})
    assert answer.problem(404, "not-found").trace_id not in traceparent.lower()


def test_each_problem_has_a_trace_of_its_own(anyone: Storefront) -> None:
    first, second = (anyone.product(NOBODY).problem(404, "not-found") for _ in range(2))
    assert first.trace_id != second.trace_id


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "AZaz09._-", "-", "..."])
@pytest.mark.parametrize(
    "path", ["/api/v1/auth/jwks", "/api/v1/products", "/api/v1/cart", "/api/v1/payments"], ids=short
)
def test_the_callers_request_id_is_carried(anyone: Storefront, path: str, request_id: str) -> None:
    answer = anyone.call("GET", path, headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a/b", "a,b", "<script>", "a:b"])
@pytest.mark.parametrize(
    "path", ["/api/v1/auth/jwks", "/api/v1/products", "/api/v1/cart", "/api/v1/payments"], ids=short
)
def test_a_request_id_of_another_form_is_replaced(anyone: Storefront, path: str, request_id: str) -> None:
    answer = anyone.call("GET", path, headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] != request_id


def test_without_one_each_answer_has_a_request_id_of_its_own(anyone: Storefront) -> None:
    assert len({anyone.jwks().headers["x-request-id"] for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "path",
    ["/api/v1/auth/nothing", "/api/v1/products/1/2/3", "/api/v1/cart/nothing", "/api/v1/payments/1/nothing"],
)
def test_a_path_that_a_service_does_not_know_is_404(admin: Storefront, path: str) -> None:
    admin.call("GET", path).problem(404, "not-found")


def test_someone_elses_resources_are_404(customer: Customer, stranger: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    address = customer.shop.add_address(ADDRESS).expect(201)
    other = stranger.shop
    other.order(order.id).problem(404, "not-found")
    other.cancel(order.id).problem(404, "not-found")
    other.call("GET", f"/api/v1/orders/{order.id}/events").problem(404, "not-found")
    assert order.payment_id is not None
    other.payment(order.payment_id).problem(404, "not-found")
    other.replace_address(address.id, ADDRESS).problem(404, "not-found")
    other.delete_address(address.id).problem(404, "not-found")
    assert customer.shop.order(order.id).expect(200).status == "confirmed"
    assert [kept.id for kept in customer.shop.addresses().expect(200).items] == [address.id]


def test_ids_are_uuids_of_version_7(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    ids = [customer.id, order.id, order.payment_id, order.lines[0].product_id]
    assert all(isinstance(given, UUID) and given.version == 7 for given in ids)


def test_the_services_named_are_those_behind_the_edge(customer: Customer) -> None:
    paths = {
        "user": "/api/v1/users/me",
        "product": "/api/v1/products",
        "payment": "/api/v1/payments",
        "order": "/api/v1/orders",
    }
    assert set(paths) == set(SERVICES)
    for path in paths.values():
        customer.shop.call("GET", path).expect(200)


def test_a_body_is_refused_before_anything_is_changed(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=3)
    body = order_body((product, 1), surprise=True)
    customer.shop.place_order(body, unique_key()).invalid("surprise")
    assert customer.shop.orders().expect(200).items == []
    assert catalogue.admin.product(product.id).expect(200).available == 3
