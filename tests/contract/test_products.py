"""The catalogue: reading, searching, sorting, paging, categories, changing, stock, retiring."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.contract.client import Json, Product, Storefront, pages
from tests.contract.shopping import Catalogue, ndjson, short, unique, unique_sku, unique_word

SORTS: dict[str, Callable[[Product], Any]] = {
    "newest": lambda product: -product.created_at.timestamp(),
    "price": lambda product: product.price.amount_minor,
    "-price": lambda product: -product.price.amount_minor,
    "name": lambda product: product.name.casefold(),
}


def ids(products: list[Product]) -> set[UUID]:
    """Give the ids of products."""
    return {product.id for product in products}


def found(anyone: Storefront, **params: Any) -> set[UUID]:
    """Give the ids of everything that a search finds."""
    return {product.id for page in pages(anyone.products, **params) for product in page}


def minimal(catalogue: Catalogue, **members: Any) -> Json:
    """Give the smallest body that creates a product."""
    return {
        "sku": unique_sku(),
        "name": "Kettle",
        "category": catalogue.category,
        "price": {"amount_minor": 1999, "currency": "USD"},
        **members,
    }


# Create


def test_a_product_is_created_with_every_member(catalogue: Catalogue, anyone: Storefront) -> None:
    body = minimal(
        catalogue,
        description="Boils water.",
        tags=["kitchen", "tea"],
        image_url="https://example.com/kettle.svg",
        attributes={"colour": "blue", "material": "enamel"},
    )
    product = catalogue.admin.create_product(body).expect(201)
    assert product.model_dump(include=set(body)) == body
    assert product.available == 0
    assert anyone.product(product.id).expect(200) == product


def test_a_product_needs_four_members_only(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.admin.create_product(minimal(catalogue)).expect(201)
    assert not product.description
    assert not product.image_url
    assert product.tags == []
    assert product.attributes == {}
    assert anyone.product(product.id).expect(200) == product


@pytest.mark.parametrize("missing", ["sku", "name", "category", "price"])
def test_a_product_needs_its_members(catalogue: Catalogue, missing: str) -> None:
    body = minimal(catalogue)
    del body[missing]
    catalogue.admin.create_product(body).invalid(missing)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("sku", "x" * 32),
        ("name", "é" * 200),
        ("description", "d" * 10_000),
        ("tags", [f"{n:02}".ljust(50, "t") for n in range(20)]),
        ("attributes", {f"key-{n}": "value" for n in range(50)}),
        ("image_url", "https://example.com/".ljust(2_000, "x")),
        ("price", {"amount_minor": 1, "currency": "JPY"}),
    ],
    ids=short,
)
def test_the_limits_of_a_product_are_taken(catalogue: Catalogue, anyone: Storefront, member: str, value: Any) -> None:
    if member == "sku":
        value = f"{unique()}{value}"
        assert len(value) == 64
    product = catalogue.admin.create_product(minimal(catalogue, **{member: value})).expect(201)
    assert anyone.product(product.id).expect(200).model_dump()[member] == value


@pytest.mark.parametrize(
    ("member", "value", "field"),
    [
        ("sku", "", "sku"),
        ("sku", "x" * 65, "sku"),
        ("sku", "a b", "sku"),
        ("sku", "a/b", "sku"),
        ("sku", "ä", "sku"),
        ("sku", 1, "sku"),
        ("name", "x" * 201, "name"),
        ("name", "NUL \0", "name"),
        ("name", None, "name"),
        ("description", "x" * 10_001, "description"),
        ("description", "NUL \0", "description"),
        ("category", "", "category"),
        ("category", "Not A Slug", "category"),
        ("category", "UPPER", "category"),
        ("category", "ä", "category"),
        ("tags", [f"tag-{n}" for n in range(21)], "tags"),
        ("tags", ["good", "x" * 51], "tags.1"),
        ("tags", ["NUL \0"], "tags.0"),
        ("tags", "kitchen", "tags"),
        ("tags", [1], "tags.0"),
        ("attributes", {f"key-{n}": "value" for n in range(51)}, "attributes"),
        ("attributes", [], "attributes"),
        ("image_url", "https://example.com/".ljust(2_001, "x"), "image_url"),
        ("price", 1999, "price"),
        ("price", "19.99", "price"),
        ("price", {"currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": 1}, "price.currency"),
        ("price", {"amount_minor": -1, "currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": 19.99, "currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": "1999", "currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": True, "currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": 10**30, "currency": "USD"}, "price.amount_minor"),
        ("price", {"amount_minor": 1, "currency": "US"}, "price.currency"),
        ("price", {"amount_minor": 1, "currency": "DOLLAR"}, "price.currency"),
        ("price", {"amount_minor": 1, "currency": "USD", "surprise": 1}, "price.surprise"),
        ("available", 5, "available"),
        ("version", 5, "version"),
        ("id", "01890a5d-ac96-774b-bcce-b302099a8057", "id"),
    ],
    ids=short,
)
def test_a_product_that_cannot_be_is_422(
    catalogue: Catalogue, anyone: Storefront, member: str, value: Any, field: str
) -> None:
    catalogue.admin.create_product(minimal(catalogue, **{member: value})).invalid(field)
    assert found(anyone, category=catalogue.category) == set()


def test_nul_in_an_attribute_is_refused(catalogue: Catalogue) -> None:
    for attributes in ({"key": "NUL \0"}, {"NUL \0": "value"}):
        catalogue.admin.create_product(minimal(catalogue, attributes=attributes)).invalid()


def test_a_sku_is_taken_once(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    body = minimal(catalogue, sku=product.sku, name="Another")
    catalogue.admin.create_product(body).problem(409, "sku-taken")
    assert anyone.product(product.id).expect(200).name == product.name


# Change


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Copper kettle"},
        {"description": "Boils faster."},
        {"tags": ["copper"]},
        {"price": {"amount_minor": 2999, "currency": "EUR"}},
        {"image_url": "https://example.com/copper.svg"},
        {"attributes": {"material": "copper"}},
    ],
    ids=short,
)
def test_a_change_changes_what_it_names(catalogue: Catalogue, anyone: Storefront, change: Json) -> None:
    product = catalogue.product(stock=2, description="Boils.", tags=["enamel"], attributes={"colour": "red"})
    before = anyone.product(product.id).expect(200)
    changed = catalogue.admin.change_product(product.id, change).expect(200)
    assert changed.version > before.version
    assert changed.updated_at >= before.updated_at
    untouched = set(Product.model_fields) - set(change) - {"version", "updated_at"}
    assert changed.model_dump(include=untouched) == before.model_dump(include=untouched)
    assert changed.model_dump(include=set(change)) == change
    assert anyone.product(product.id).expect(200) == changed


@pytest.mark.parametrize("field", ["sku", "id", "available", "version", "on_hand", "created_at"])
def test_what_is_no_change_is_422(catalogue: Catalogue, anyone: Storefront, field: str) -> None:
    product = catalogue.product()
    catalogue.admin.change_product(product.id, {field: "changed", "name": "Changed"}).invalid(field)
    assert anyone.product(product.id).expect(200) == product


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
        ({"category": "Not A Slug"}, "category"),
        ({"price": {"amount_minor": -1, "currency": "USD"}}, "price.amount_minor"),
        ({"tags": ["x"] * 21}, "tags"),
        ({"description": "NUL \0"}, "description"),
    ],
    ids=short,
)
def test_a_change_keeps_the_limits(catalogue: Catalogue, anyone: Storefront, change: Json, field: str) -> None:
    product = catalogue.product()
    catalogue.admin.change_product(product.id, change).invalid(field)
    assert anyone.product(product.id).expect(200) == product


# ETag and If-Match


def test_a_product_has_a_strong_etag_that_saves_the_body(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    answer = anyone.product(product.id)
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    assert etag.endswith('"')
    assert answer.headers["cache-control"]
    for condition in (etag, f'"other", {etag}', f"W/{etag}"):
        unchanged = anyone.product(product.id, {"If-None-Match": condition})
        unchanged.empty(304)
        assert unchanged.headers["etag"] == etag
        assert unchanged.headers["cache-control"]
    assert anyone.product(product.id, {"If-None-Match": '"other"'}).expect(200) == product


def test_an_etag_changes_with_every_member_and_the_stock(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    seen = {anyone.product(product.id).headers["etag"]}
    changes: list[Json] = [
        {"name": "Another"},
        {"description": "Another."},
        {"category": f"{catalogue.category}-other"},
        {"tags": ["another"]},
        {"price": {"amount_minor": 1, "currency": "USD"}},
        {"price": {"amount_minor": 1, "currency": "EUR"}},
        {"image_url": "https://example.com/another.svg"},
        {"attributes": {"another": "one"}},
    ]
    for change in changes:
        catalogue.admin.change_product(product.id, change).expect(200)
        seen.add(anyone.product(product.id).headers["etag"])
    catalogue.admin.move_stock(product.id, delta=1, reason="received").expect(200)
    stale = next(iter(seen))
    answer = anyone.product(product.id, {"If-None-Match": stale})
    assert answer.expect(200).available == 1
    seen.add(answer.headers["etag"])
    assert len(seen) == len(changes) + 2


def test_a_list_of_products_has_an_etag(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=1)
    answer = anyone.products(category=catalogue.category)
    answer.expect(200)
    assert answer.headers["cache-control"]
    etag = answer.headers["etag"]
    assert etag.startswith('"')
    # The tag of a list may change with products that are not in it, which other tests make at the same time.
    unchanged = anyone.products({"If-None-Match": etag}, category=catalogue.category)
    for _ in range(50):
        if unchanged.status == 304:
            break
        etag = unchanged.headers["etag"]
        unchanged = anyone.products({"If-None-Match": etag}, category=catalogue.category)
    unchanged.empty(304)
    catalogue.admin.move_stock(product.id, delta=1, reason="received").expect(200)
    changed = anyone.products({"If-None-Match": etag}, category=catalogue.category)
    assert changed.expect(200).items[0].available == 2
    assert changed.headers["etag"] != etag


def test_a_list_is_fresh_for_who_changed_it(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    for price_minor in (1, 2, 3):
        change = {"price": {"amount_minor": price_minor, "currency": "USD"}}
        catalogue.admin.change_product(product.id, change).expect(200)
        [listed] = anyone.products(category=catalogue.category).expect(200).items
        assert listed.price.amount_minor == price_minor
        assert anyone.product(product.id).expect(200).price.amount_minor == price_minor


def test_a_stale_if_match_is_412(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    etag = anyone.product(product.id).headers["etag"]
    admin = catalogue.admin
    changed = admin.change_product(product.id, {"name": "First"}, {"If-Match": etag}).expect(200)
    for stale in (etag, '"nonsense"'):
        answer = admin.change_product(product.id, {"name": "Second"}, {"If-Match": stale})
        answer.problem(412, "precondition-failed")
        admin.retire_product(product.id, {"If-Match": stale}).problem(412, "precondition-failed")
    assert anyone.product(product.id).expect(200) == changed
    admin.change_product(product.id, {"name": "Third"}).expect(200)
    fresh = anyone.product(product.id).headers["etag"]
    admin.retire_product(product.id, {"If-Match": fresh}).empty(204)


def test_if_match_survives_a_stock_movement_but_not_an_import(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    admin = catalogue.admin
    etag = anyone.product(product.id).headers["etag"]
    version = product.version
    admin.move_stock(product.id, delta=5, reason="received").expect(200)
    assert anyone.product(product.id).headers["etag"] != etag
    assert anyone.product(product.id).expect(200).version == version
    admin.change_product(product.id, {"name": "Changed"}, {"If-Match": etag}).expect(200)

    etag = anyone.product(product.id).headers["etag"]
    version = anyone.product(product.id).expect(200).version
    line = {
        "sku": product.sku,
        "name": "Imported",
        "category": catalogue.category,
        "price_minor": 1,
        "currency": "USD",
    }
    assert admin.import_products(ndjson(line)).expect(200).updated == 1
    assert anyone.product(product.id).expect(200).version > version
    answer = admin.change_product(product.id, {"name": "Late"}, {"If-Match": etag})
    answer.problem(412, "precondition-failed")


# Sorting and paging


@pytest.fixture
def shelf(catalogue: Catalogue) -> list[Product]:
    """Seven products, with prices that several have, oldest first."""
    names = ["banana", "Apple", "Éclair", "cherry", "Öl", "Zebra", "apple pie"]
    prices = [300, 100, 200, 200, 100, 300, 200]
    return [catalogue.product(name=name, price_minor=price) for name, price in zip(names, prices, strict=True)]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_every_sort_is_complete_over_its_pages(
    catalogue: Catalogue, anyone: Storefront, shelf: list[Product], sort: str, limit: int
) -> None:
    read = pages(anyone.products, category=catalogue.category, sort=sort, limit=limit)
    listed = [product for page in read for product in page]
    assert len(listed) == len(shelf)
    assert ids(listed) == ids(shelf)
    assert [SORTS[sort](product) for product in listed] == sorted(SORTS[sort](product) for product in shelf)
    assert [
        product for page in pages(anyone.products, category=catalogue.category, sort=sort) for product in page
    ] == listed


def test_names_are_folded_as_unicode_folds_them(catalogue: Catalogue, anyone: Storefront) -> None:
    for name in ("STRASSF", "Straße", "strassa", "ΣΊΣΥΦΟΣ", "σίσυφος 2"):
        catalogue.product(name=name)
    listed = anyone.products(category=catalogue.category, sort="name").expect(200).items
    names = [product.name for product in listed]
    assert names == sorted(names, key=str.casefold)


def test_without_words_the_newest_comes_first(catalogue: Catalogue, anyone: Storefront, shelf: list[Product]) -> None:
    listed = anyone.products(category=catalogue.category).expect(200).items
    assert [product.id for product in listed] == [product.id for product in reversed(shelf)]


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_added_while_paging_disturbs_nothing(
    catalogue: Catalogue, anyone: Storefront, shelf: list[Product], sort: str
) -> None:
    listed: list[Product] = []
    cursor: Json = {}
    while True:
        page = anyone.products(category=catalogue.category, sort=sort, limit=2, **cursor).expect(200)
        listed += page.items
        if page.next_cursor is None:
            break
        cursor = {"cursor": page.next_cursor}
        if len(listed) <= 6:
            catalogue.product(name="apple crumble", price_minor=150)
    assert len(listed) == len(ids(listed))
    assert ids(shelf) <= ids(listed)


@pytest.mark.parametrize("damage", ["cut", "begun later", "changed", "longer"])
@pytest.mark.parametrize("sort", SORTS)
def test_a_damaged_cursor_is_400(
    catalogue: Catalogue, anyone: Storefront, shelf: list[Product], sort: str, damage: str
) -> None:
    assert len(shelf) > 1
    cursor = anyone.products(category=catalogue.category, sort=sort, limit=1).expect(200).next_cursor
    assert cursor is not None
    middle = len(cursor) // 2
    damaged = {
        "cut": cursor[:-4],
        "begun later": cursor[1:],
        "changed": cursor[:middle] + ("A" if cursor[middle] != "A" else "B") + cursor[middle + 1 :],
        "longer": cursor + "AAAA",
    }[damage]
    answer = anyone.products(category=catalogue.category, sort=sort, cursor=damaged)
    answer.problem(400, "invalid-cursor")


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "-price"},
        {"sort": "name"},
        {"sort": "newest"},
        {"sort": "price", "min_price": 1},
        {"sort": "price", "max_price": 1000},
        {"sort": "price", "in_stock": "true"},
        {"sort": "price", "q": "apple"},
    ],
)
def test_a_cursor_holds_for_its_filter_and_sort_only(
    catalogue: Catalogue, anyone: Storefront, shelf: list[Product], other: Json
) -> None:
    assert len(shelf) > 1
    page = anyone.products(category=catalogue.category, sort="price", limit=2).expect(200)
    cursor = page.next_cursor
    anyone.products(category=catalogue.category, sort="price", limit=3, cursor=cursor).expect(200)
    answer = anyone.products(category=catalogue.category, cursor=cursor, **other)
    answer.problem(400, "invalid-cursor")
    anyone.products(sort="price", cursor=cursor).problem(400, "invalid-cursor")
    anyone.products(category="another", sort="price", cursor=cursor).problem(400, "invalid-cursor")


def test_the_default_page_has_20(catalogue: Catalogue, anyone: Storefront) -> None:
    lines = [
        {
            "sku": unique_sku(),
            "name": "x",
            "category": catalogue.category,
            "price_minor": n,
            "currency": "USD",
        }
        for n in range(21)
    ]
    assert catalogue.admin.import_products(ndjson(*lines)).expect(200).created == 21
    read = pages(anyone.products, category=catalogue.category)
    assert [len(page) for page in read] == [20, 1]


# Search and filters


def test_all_words_must_occur_wherever_they_stand(catalogue: Catalogue, anyone: Storefront) -> None:
    word = unique_word()
    both = {
        catalogue.product(name=f"{word} lantern").id,
        catalogue.product(name="Lantern", description=f"Made by {word}.").id,
        catalogue.product(name="Lamp", description="A lantern.", tags=[word]).id,
    }
    one = {catalogue.product(name=word).id, catalogue.product(tags=[word]).id}
    assert found(anyone, q=f"{word} lantern") == both
    assert found(anyone, q=f"LANTERN {word.upper()}") == both
    assert found(anyone, q=word) == both | one
    assert found(anyone, q=f"{word} lantern trombone") == set()


def test_words_are_stemmed_in_english(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(name="Running shoes", description="For long runs.", tags=["boxes"])
    for words in ("run", "running shoe", "shoe runs", "box", "shoes"):
        assert found(anyone, q=words, category=catalogue.category) == {product.id}
    assert found(anyone, q="runway", category=catalogue.category) == set()


@pytest.mark.parametrize("words", ["kettle or teapot", "kettle OR teapot", "kettle | teapot"])
def test_no_word_of_a_search_is_an_operator(catalogue: Catalogue, anyone: Storefront, words: str) -> None:
    both = catalogue.product(name="Kettle and teapot")
    catalogue.product(name="Kettle")
    catalogue.product(name="Teapot")
    assert found(anyone, q=words, category=catalogue.category) == {both.id}


@pytest.mark.parametrize(
    "words",
    ["'", '"', "kettle & ! | ( ) : *", "kettle:*", "\\", "<->", "!!", "kettle' OR 1=1 --", "🫖", "x" * 200],
    ids=short,
)
def test_punctuation_in_a_search_is_harmless(catalogue: Catalogue, anyone: Storefront, words: str) -> None:
    answer = anyone.products(q=words, category=catalogue.category)
    if answer.status != 422:
        answer.expect(200)


def test_nul_in_a_search_is_refused(anyone: Storefront) -> None:
    anyone.products(q="NUL \0").invalid("q")
    anyone.products(category="nul\0").invalid("category")


def test_relevance_is_the_default_with_words_and_pages_completely(catalogue: Catalogue, anyone: Storefront) -> None:
    word = unique_word()
    made = {
        catalogue.product(name=word if n % 2 else "Lamp", description=" ".join([word] * (n + 1))).id for n in range(7)
    }
    for limit in (1, 2, 3, 100):
        read = pages(anyone.products, q=word, limit=limit)
        listed = [product.id for page in read for product in page]
        assert len(listed) == 7
        assert set(listed) == made
    default = [product.id for product in anyone.products(q=word).expect(200).items]
    explicit = [product.id for product in anyone.products(q=word, sort="relevance").expect(200).items]
    assert default == explicit


@pytest.mark.parametrize("sort", SORTS)
def test_a_search_may_be_sorted_otherwise(
    catalogue: Catalogue, anyone: Storefront, shelf: list[Product], sort: str
) -> None:
    apples = [product for product in shelf if "apple" in product.name.lower()]
    listed = anyone.products(q="apples", category=catalogue.category, sort=sort).expect(200).items
    assert ids(listed) == ids(apples)
    assert [product.id for product in listed] == [product.id for product in sorted(apples, key=SORTS[sort])]


def test_price_bounds_are_inclusive(catalogue: Catalogue, anyone: Storefront) -> None:
    low, middle, high = (catalogue.product(price_minor=price).id for price in (100, 200, 300))
    category = catalogue.category
    assert found(anyone, category=category, min_price=200) == {middle, high}
    assert found(anyone, category=category, max_price=200) == {low, middle}
    assert found(anyone, category=category, min_price=100, max_price=300) == {low, middle, high}
    assert found(anyone, category=category, min_price=200, max_price=200) == {middle}
    assert found(anyone, category=category, min_price=301) == set()


def test_in_stock_leaves_out_what_is_not(catalogue: Catalogue, anyone: Storefront) -> None:
    in_stock = catalogue.product(stock=1)
    catalogue.product()
    assert found(anyone, category=catalogue.category, in_stock="true") == {in_stock.id}


def test_filters_narrow_each_other(catalogue: Catalogue, anyone: Storefront) -> None:
    wanted = catalogue.product(name="Teapot", price_minor=200, stock=1)
    catalogue.product(name="Teapot", price_minor=200)
    catalogue.product(name="Teapot", price_minor=201, stock=1)
    catalogue.product(name="Kettle", price_minor=200, stock=1)
    assert found(anyone, q="teapot", category=catalogue.category, max_price=200, in_stock="true", sort="-price") == {
        wanted.id
    }


def test_a_category_that_is_none_has_no_products(anyone: Storefront) -> None:
    assert found(anyone, category=f"none-{unique()}") == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sort", "relevance"),
        ("sort", "cheapest"),
        ("sort", ""),
        ("min_price", "abc"),
        ("max_price", "1.5"),
        ("min_price", "1" * 30),
        ("in_stock", "maybe"),
    ],
)
def test_a_parameter_that_cannot_be_is_422(anyone: Storefront, name: str, value: str) -> None:
    anyone.products(**{name: value}).invalid(name)


# Categories


def test_a_category_is_made_on_first_use_and_counts(catalogue: Catalogue, anyone: Storefront) -> None:
    def counts() -> dict[str, int]:
        return {category.slug: category.product_count for category in anyone.categories().expect(200)}

    assert catalogue.category not in counts()
    first, second = catalogue.product(), catalogue.product()
    assert counts()[catalogue.category] == 2
    other = f"{catalogue.category}-other"
    catalogue.admin.change_product(first.id, {"category": other}).expect(200)
    after = counts()
    assert (after[catalogue.category], after[other]) == (1, 1)
    catalogue.admin.retire_product(second.id).empty(204)
    assert catalogue.category not in counts()


# Stock


def test_a_stock_movement_adds_and_takes(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product()
    stock = catalogue.admin.move_stock(product.id, delta=5, reason="received").expect(200)
    assert (stock.on_hand, stock.reserved, stock.available) == (5, 0, 5)
    stock = catalogue.admin.move_stock(product.id, delta=-2, reason="broken").expect(200)
    assert (stock.on_hand, stock.reserved, stock.available) == (3, 0, 3)
    assert anyone.product(product.id).expect(200).available == 3


def test_no_movement_takes_more_than_there_is(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=3)
    answer = catalogue.admin.move_stock(product.id, delta=-4, reason="broken")
    answer.problem(409, "insufficient-stock")
    assert anyone.product(product.id).expect(200).available == 3
    assert catalogue.admin.move_stock(product.id, delta=-3, reason="broken").expect(200).on_hand == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "received"}, "delta"),
        ({"delta": 1}, "reason"),
        ({"delta": "1", "reason": "received"}, "delta"),
        ({"delta": 1.5, "reason": "received"}, "delta"),
        ({"delta": True, "reason": "received"}, "delta"),
        ({"delta": 10**30, "reason": "received"}, "delta"),
        ({"delta": 1, "reason": 1}, "reason"),
        ({"delta": 1, "reason": "NUL \0"}, "reason"),
    ],
)
def test_a_movement_that_cannot_be_is_422(catalogue: Catalogue, anyone: Storefront, body: Json, field: str) -> None:
    product = catalogue.product()
    catalogue.admin.move_stock(product.id, **body).invalid(field)
    assert anyone.product(product.id).expect(200).available == 0


# Retire


def test_a_retired_product_is_gone(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=1)
    admin = catalogue.admin
    admin.retire_product(product.id).empty(204)
    anyone.product(product.id).problem(404, "not-found")
    assert found(anyone, category=catalogue.category) == set()
    admin.retire_product(product.id).problem(404, "not-found")
    admin.change_product(product.id, {"name": "Back"}).problem(404, "not-found")
    admin.move_stock(product.id, delta=1, reason="received").problem(404, "not-found")
    admin.create_product(minimal(catalogue, sku=product.sku)).problem(409, "sku-taken")


def test_an_import_brings_a_retired_product_back(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=1, description="Kept.")
    catalogue.admin.retire_product(product.id).empty(204)
    line = {
        "sku": product.sku,
        "name": "Returned",
        "category": catalogue.category,
        "price_minor": 5,
        "currency": "USD",
    }
    report = catalogue.admin.import_products(ndjson(line)).expect(200)
    assert (report.created, report.updated, report.rejected) == (0, 1, [])
    returned = anyone.product(product.id).expect(200)
    assert (returned.name, returned.price.amount_minor, returned.description) == ("Returned", 5, "Kept.")
    assert found(anyone, category=catalogue.category) == {product.id}
