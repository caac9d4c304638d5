"""Every public route and each of its statuses."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from httpx2 import Response

from services.product.pictures import FOLDER
from services.product.tests.conftest import ADMIN, CUSTOMER, ORDER, Json, Shop, unique

UNKNOWN = "0197f000-0000-7000-8000-000000000000"
PRODUCT = f"/api/v1/products/{UNKNOWN}"
ADMIN_CALLS: list[tuple[str, str, Json | None]] = [
    ("POST", "/api/v1/products", {}),
    ("PATCH", PRODUCT, {}),
    ("DELETE", PRODUCT, None),
    ("POST", f"{PRODUCT}/stock", {"delta": 1, "reason": "received"}),
    ("POST", "/api/v1/products/import", None),
]

REFUSED: list[tuple[str, Any, str]] = [
    ("sku", "a b", "sku"),
    ("sku", "x" * 65, "sku"),
    ("sku", "a\n", "sku"),
    ("name", "", "name"),
    ("name", "x" * 201, "name"),
    ("name", "\x00", "name"),
    ("description", "x" * 10_001, "description"),
    ("category", "Not a slug", "category"),
    ("category", "x" * 101, "category"),
    ("tags", ["x"] * 21, "tags"),
    ("tags", ["x" * 51], "tags.0"),
    ("tags", [""], "tags.0"),
    ("price", {"amount_minor": -1, "currency": "USD"}, "price.amount_minor"),
    ("price", {"amount_minor": 1.0, "currency": "USD"}, "price.amount_minor"),
    ("price", {"amount_minor": 1, "currency": "XXX"}, "price.currency"),
    ("image_url", "ftp://example.com/", "image_url"),
    ("image_url", "javascript:alert(1)", "image_url"),
    ("image_url", "//" + "x" * 2_000, "image_url"),
    ("attributes", {f"a{n}": 1 for n in range(51)}, "attributes"),
    ("attributes", {"big": 2**60}, "attributes"),
    ("attributes", {"deep": [[[[[[]]]]]]}, "attributes"),
    ("attributes", {"nul": ["\x00"]}, "attributes"),
    ("attributes", {"\x00": 1}, "attributes"),
    ("attributes", {"long": "x" * 20_000}, "attributes"),
    ("surprise", 1, "surprise"),
]


def problem(answer: Response, status: int, code: str) -> Json:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: Json = answer.json()
    assert document["type"] == f"/problems/{code}"
    return document


def fields(answer: Response) -> set[str]:
    """The fields that a 422 names."""
    return {error["field"] for error in problem(answer, 422, "invalid-request")["errors"]}


async def pages(shop: Shop, **params: Any) -> list[Json]:
    """All items of a list, page by page."""
    items: list[Json] = []
    cursor: dict[str, str] = {}
    while True:
        page = await shop.read("/api/v1/products", **params, **cursor)
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_CALLS)
async def test_what_admins_do_takes_a_token_and_the_role(shop: Shop, method: str, path: str, body: Json | None) -> None:
    anonymous = await shop.send(method, path, json=body)
    problem(anonymous, 401, "unauthenticated")
    assert "WWW-Authenticate" in anonymous.headers
    problem(await shop.send(method, path, json=body, headers=CUSTOMER), 403, "forbidden")
    problem(await shop.send(method, path, json=body, headers=ORDER), 401, "unauthenticated")


async def test_a_product_is_created_with_every_member(shop: Shop) -> None:
    body = shop.body(
        description="Boils water.",
        tags=["tea", "steel | enamel"],
        image_url="/api/v1/products/pictures/kettle.svg",
        attributes={"colour": "blue", "litres": 1.5, "sizes": ["s", "m"], "sold_out": False, "note": None},
    )
    answer = await shop.send("POST", "/api/v1/products", json=body, headers=ADMIN)
    assert answer.status_code == 201
    product = answer.json()
    assert {name: product[name] for name in body} == body
    assert (product["available"], product["version"]) == (0, 1)
    assert product["created_at"] == product["updated_at"]
    assert product["created_at"].endswith("Z")
    assert answer.headers["Location"] == f"/api/v1/products/{product['id']}"
    read = await shop.send("GET", answer.headers["Location"])
    assert read.content == answer.content
    assert read.headers["ETag"] == answer.headers["ETag"]


@pytest.mark.parametrize(("member", "value", "field"), REFUSED)
async def test_a_product_that_cannot_be_is_refused_by_field(shop: Shop, member: str, value: Any, field: str) -> None:
    body = shop.body(**{member: value})
    assert fields(await shop.send("POST", "/api/v1/products", json=body, headers=ADMIN)) == {field}
    assert await pages(shop, category=shop.category) == []


async def test_an_infinite_attribute_is_refused(shop: Shop) -> None:
    text = '{"sku":"a","name":"a","category":"a","price":{"amount_minor":1,"currency":"USD"},"attributes":{"a":1e999}}'
    headers = ADMIN | {"Content-Type": "application/json"}
    assert fields(await shop.send("POST", "/api/v1/products", content=text, headers=headers)) == {"attributes"}


async def test_a_sku_is_taken_also_by_a_retired_product(shop: Shop) -> None:
    product = await shop.product()
    for _ in range(2):
        again = await shop.send("POST", "/api/v1/products", json=shop.body(sku=product["sku"]), headers=ADMIN)
        problem(again, 409, "sku-taken")
        await shop.retire(product["id"])


async def test_reads_of_what_is_not_there_are_404(shop: Shop) -> None:
    retired = (await shop.product())["id"]
    assert (await shop.retire(retired)).status_code == 204
    for product_id in (UNKNOWN, retired):
        problem(await shop.send("GET", f"/api/v1/products/{product_id}"), 404, "not-found")
        problem(await shop.change(product_id, name="x"), 404, "not-found")
        problem(await shop.change(product_id, {"If-Match": '"9"'}, name="x"), 404, "not-found")
        problem(await shop.retire(product_id), 404, "not-found")
        problem(await shop.move(product_id, 1), 404, "not-found")
    assert fields(await shop.send("GET", "/api/v1/products/5")) == {"product_id"}


async def test_a_change_changes_what_it_names_and_the_version(shop: Shop) -> None:
    product = await shop.product(description="Old.", tags=["old"], image_url="/old", attributes={"old": 1})
    change: Json = {
        "name": "ÉTUI",
        "description": None,
        "category": f"{shop.category}-b",
        "tags": [],
        "price": {"amount_minor": 0, "currency": "EUR"},
        "image_url": None,
        "attributes": {},
    }
    for member, value in change.items():
        before = await shop.read(f"/api/v1/products/{product['id']}")
        answer = await shop.change(product["id"], **{member: value})
        assert answer.status_code == 200
        after = answer.json()
        assert after == before | {member: value, "version": before["version"] + 1, "updated_at": after["updated_at"]}
        read = await shop.send("GET", f"/api/v1/products/{product['id']}")
        assert (read.content, read.headers["ETag"]) == (answer.content, answer.headers["ETag"])


async def test_a_change_of_nothing_answers_the_product_as_it_is(shop: Shop) -> None:
    product = await shop.product()
    answer = await shop.change(product["id"])
    assert (answer.status_code, answer.json()) == (200, product)
    problem(await shop.change(product["id"], {"If-Match": '"7"'}), 412, "precondition-failed")
    assert await shop.read(f"/api/v1/products/{product['id']}") == product


@pytest.mark.parametrize("member", ["name", "category", "tags", "price", "attributes", "sku", "version"])
async def test_what_may_not_be_null_or_change_is_refused(shop: Shop, member: str) -> None:
    product = await shop.product()
    assert fields(await shop.change(product["id"], **{member: None})) == {member}
    assert await shop.read(f"/api/v1/products/{product['id']}") == product


async def test_if_match_compares_the_version(shop: Shop) -> None:
    product = await shop.product()
    path = f"/api/v1/products/{product['id']}"
    etag = (await shop.send("GET", path)).headers["ETag"]
    await shop.move(product["id"], 3)
    assert (await shop.send("GET", path)).headers["ETag"] != etag
    changed = await shop.change(product["id"], {"If-Match": f'"7-abc", {etag}'}, name="First")
    assert changed.status_code == 200, "a stock movement makes no version"
    for stale in (etag, f"W/{changed.headers['ETag']}", '"x"', "2", "", '"99999999999999999999"'):
        problem(await shop.change(product["id"], {"If-Match": stale}, name="No"), 412, "precondition-failed")
        problem(await shop.retire(product["id"], **{"If-Match": stale}), 412, "precondition-failed")
    assert (await shop.change(product["id"], {"If-Match": '"2"'}, name="By number")).status_code == 200
    assert (await shop.change(product["id"], {"If-Match": "*"}, name="By star")).status_code == 200
    assert (await shop.read(path))["name"] == "By star"
    fresh = (await shop.send("GET", path)).headers["ETag"]
    assert (await shop.retire(product["id"], **{"If-Match": fresh})).status_code == 204


async def test_stock_moves_but_never_below_what_is_reserved(shop: Shop) -> None:
    product = await shop.product()
    assert (await shop.move(product["id"], 5)).json() == {"on_hand": 5, "reserved": 0, "available": 5}
    assert (await shop.reserve(uuid4(), (product["id"], 2))).status_code == 200
    refused = problem(await shop.move(product["id"], -4), 409, "insufficient-stock")
    assert (refused["on_hand"], refused["reserved"], refused["available"]) == (5, 2, 3)
    assert (await shop.move(product["id"], -3)).json() == {"on_hand": 2, "reserved": 2, "available": 0}
    assert (await shop.read(f"/api/v1/products/{product['id']}"))["available"] == 0
    notes = await shop.service.database.fetch(
        "SELECT delta, reason FROM stock_movements WHERE product_id = $1 ORDER BY id", product["id"]
    )
    assert [tuple(note) for note in notes] == [(5, "received"), (-3, "received")]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"delta": 0, "reason": "x"}, "delta"),
        ({"delta": 10**9 + 1, "reason": "x"}, "delta"),
        ({"delta": True, "reason": "x"}, "delta"),
        ({"delta": 1, "reason": ""}, "reason"),
        ({"delta": 1, "reason": "x" * 201}, "reason"),
        ({"delta": 1, "reason": "\x00"}, "reason"),
        ({"delta": 1}, "reason"),
    ],
)
async def test_a_movement_that_cannot_be_is_refused(shop: Shop, body: Json, field: str) -> None:
    product = await shop.product()
    answer = await shop.send("POST", f"/api/v1/products/{product['id']}/stock", json=body, headers=ADMIN)
    assert fields(answer) == {field}
    assert await shop.stock(product["id"]) == (0, 0)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("search", [{}, {"q": "lamp"}])
async def test_each_sort_is_complete_over_its_pages(shop: Shop, limit: int, search: Json) -> None:
    names = ["Zebra lamp", "apple lamp", "Äpfel lamp", "lamp", "Lamp", "lamp lamp"]
    for name, price in zip(names, [3, 1, 2, 2, 1, 3], strict=True):
        await shop.product(name=name, price={"amount_minor": price, "currency": "USD"})
    keys: dict[str, Callable[[Json], Any] | None] = {
        "newest": lambda product: product["created_at"],
        "price": lambda product: product["price"]["amount_minor"],
        "-price": lambda product: -product["price"]["amount_minor"],
        "name": lambda product: product["name"].casefold(),
        **({"relevance": None} if search else {}),
    }
    for sort, key in keys.items():
        listed = await pages(shop, category=shop.category, sort=sort, limit=limit, **search)
        assert sorted(product["name"] for product in listed) == sorted(names)
        whole = await pages(shop, category=shop.category, sort=sort, limit=100, **search)
        assert listed == whole
        if key is not None:
            assert [key(product) for product in listed] == sorted(
                (key(each) for each in listed), reverse=sort == "newest"
            )


async def test_a_word_in_the_name_counts_more_than_in_the_description(shop: Shop) -> None:
    word = unique()
    described = await shop.product(description=f"Nice with {word}.")
    tagged = await shop.product(tags=[word])
    named = await shop.product(name=word)
    found = await shop.read("/api/v1/products", q=word)
    assert [product["id"] for product in found["items"]] == [named["id"], tagged["id"], described["id"]]


async def test_filters_narrow_and_bounds_are_inclusive(shop: Shop) -> None:
    cheap, middle, dear = [
        await shop.product(on_hand, name=name, price={"amount_minor": price, "currency": "USD"})
        for on_hand, name, price in ((0, "Red boxes", 1), (2, "Blue box", 2), (0, "Red box", 3))
    ]
    expectations: list[tuple[Json, set[str]]] = [
        ({"min_price": 2}, {middle["id"], dear["id"]}),
        ({"max_price": 2}, {cheap["id"], middle["id"]}),
        ({"min_price": 2, "max_price": 2}, {middle["id"]}),
        ({"min_price": 3, "max_price": 2}, set()),
        ({"in_stock": "true"}, {middle["id"]}),
        ({"in_stock": "false"}, {cheap["id"], middle["id"], dear["id"]}),
        ({"q": "box red"}, {cheap["id"], dear["id"]}),
        ({"q": "the"}, set()),
        ({"q": "red", "min_price": 2, "in_stock": "true"}, set()),
        ({"surprise": "ignored", "max_price": 1}, {cheap["id"]}),
    ]
    for params, expected in expectations:
        listed = await pages(shop, category=shop.category, **params)
        assert {product["id"] for product in listed} == expected, params


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"sort": "relevance"}, "sort"),
        ({"sort": "cheap"}, "sort"),
        ({"q": "\x00"}, "q"),
        ({"q": ""}, "q"),
        ({"category": "\x00"}, "category"),
        ({"min_price": -1}, "min_price"),
        ({"max_price": 10**13}, "max_price"),
        ({"in_stock": "perhaps"}, "in_stock"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
    ],
)
async def test_a_parameter_that_cannot_be_is_refused(shop: Shop, params: Json, field: str) -> None:
    assert fields(await shop.send("GET", "/api/v1/products", params=params)) == {field}


async def test_a_cursor_is_good_for_its_list_only(shop: Shop) -> None:
    for price in (1, 2):
        await shop.product(price={"amount_minor": price, "currency": "USD"})
    first = await shop.read("/api/v1/products", category=shop.category, sort="price", limit=1)
    cursor = first["next_cursor"]
    for params in (
        {"sort": "-price"},
        {"sort": "price", "min_price": 1},
        {"sort": "price", "in_stock": "true"},
        {"sort": "price", "q": "kettle"},
        {"sort": "price", "cursor": cursor + "A"},
        {"sort": "price", "cursor": "?"},
    ):
        answer = await shop.send(
            "GET", "/api/v1/products", params={"category": shop.category, "cursor": cursor} | params
        )
        problem(answer, 400, "invalid-cursor")
    second = await shop.read("/api/v1/products", category=shop.category, sort="price", limit=9, cursor=cursor)
    assert [item["price"]["amount_minor"] for item in second["items"]] == [2]
    assert second["next_cursor"] is None


async def test_categories_count_what_is_not_retired(shop: Shop) -> None:
    async def counts() -> dict[str, int]:
        return {row["slug"]: row["product_count"] for row in await shop.read("/api/v1/categories")}

    first, second = await shop.product(), await shop.product()
    assert (await counts())[shop.category] == 2
    names = {row["slug"]: row["name"] for row in await shop.read("/api/v1/categories")}
    assert names[shop.category] == shop.category.replace("-", " ").capitalize()
    await shop.change(first["id"], category=f"{shop.category}-b")
    assert (await counts())[shop.category] == 1
    await shop.retire(second["id"])
    assert shop.category not in await counts()


@pytest.mark.parametrize("path", ["/api/v1/products", "/api/v1/products/{id}", "/api/v1/categories"])
async def test_a_read_that_has_not_changed_is_304(shop: Shop, path: str) -> None:
    product = await shop.product()
    path = path.replace("{id}", product["id"])
    params = {"category": shop.category}
    read = await shop.send("GET", path, params=params)
    etag = read.headers["ETag"]
    assert etag.startswith('"')
    assert read.headers["Cache-Control"] == "no-cache"
    assert int(read.headers["Content-Length"]) == len(read.content)
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        unchanged = await shop.send("GET", path, params=params, headers={"If-None-Match": condition})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert (unchanged.headers["ETag"], unchanged.headers["Cache-Control"]) == (etag, "no-cache")
    again = await shop.send("GET", path, params=params, headers={"If-None-Match": '"other"'})
    assert (again.status_code, again.content) == (200, read.content)


async def test_a_condition_holds_also_for_what_is_not_in_memory(shop: Shop) -> None:
    product = await shop.product()
    etag = (await shop.send("GET", f"/api/v1/products/{product['id']}")).headers["ETag"]
    unseen = await shop.send("GET", f"/api/v1/products/{product['id']}?unseen", headers={"If-None-Match": etag})
    assert (unseen.status_code, unseen.headers["ETag"]) == (304, etag)


async def test_the_etag_changes_with_every_member_and_the_stock(shop: Shop) -> None:
    product = await shop.product()
    changes: list[Json] = [
        {"name": "b"},
        {"description": "b"},
        {"category": f"{shop.category}-b"},
        {"tags": ["b"]},
        {"price": {"amount_minor": 1, "currency": "EUR"}},
        {"image_url": "/b"},
        {"attributes": {"b": 1}},
    ]
    tags = {(await shop.send("GET", f"/api/v1/products/{product['id']}")).headers["ETag"]}
    for change in changes:
        tags.add((await shop.change(product["id"], **change)).headers["ETag"])
    await shop.move(product["id"], 1)
    tags.add((await shop.send("GET", f"/api/v1/products/{product['id']}")).headers["ETag"])
    assert len(tags) == len(changes) + 2


async def test_pictures_are_served_and_nothing_else_is(shop: Shop) -> None:
    name = min(file.name for file in FOLDER.glob("*.svg"))
    read = await shop.send("GET", f"/api/v1/products/pictures/{name}")
    assert read.content == (FOLDER / name).read_bytes()
    assert read.headers["Content-Type"] == "image/svg+xml"
    assert "default-src 'none'" in read.headers["Content-Security-Policy"]
    headers = {"If-None-Match": read.headers["ETag"]}
    unchanged = await shop.send("GET", f"/api/v1/products/pictures/{name}", headers=headers)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    for other in ("none.svg", "..%2f..%2fapp.py%00.svg", "%2e%2e%2f__init__.svg", "kettle.png"):
        problem(await shop.send("GET", f"/api/v1/products/pictures/{other}"), 404, "not-found")


async def test_reads_are_counted_by_route_and_by_how_they_were_answered(shop: Shop) -> None:
    product = await shop.product()
    path = f"/api/v1/products/{product['id']}"
    await shop.read(path)
    await shop.read(path)  # proven with a generation that was not known before
    await shop.read(path)
    text = (await shop.send("GET", "/metrics")).text
    assert 'souk_read_cache_reads_total{result="hit"} 1.0' in text
    assert 'souk_read_cache_reads_total{result="miss"} 1.0' in text
    assert 'handler="/api/v1/products/{product_id}",method="GET",status="200"} 3.0' in text
    assert product["id"] not in text
