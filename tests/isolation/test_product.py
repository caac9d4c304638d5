"""Two transactions of the product service at once: no unit is sold twice, lost, or freed twice."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from chassis.problems import IllegalTransition, InsufficientStock, PreconditionFailed
from chassis.schemas import Money
from services.product.domain import ProductNotFound, SkuTaken
from services.product.repository import Catalogue, ImportCounts, Stock, StockLevel
from services.product.schemas import ImportLine, NewProduct, ProductChange, Wanted
from tests.databases import Databases
from tests.isolation.meeting import Meeting, Work, ends_either_way, meeting_place

TTL_S = 900.0
MOST = 1_000

BOOKS = """
SELECT on_hand, reserved,
    (SELECT sum(delta)::bigint FROM stock_movements m WHERE m.product_id = s.product_id) AS received,
    (SELECT coalesce(sum(item.quantity), 0)::bigint
        FROM reservations, jsonb_to_recordset(items) AS item (product_id uuid, quantity bigint)
        WHERE item.product_id = s.product_id AND status = 'committed') AS committed,
    (SELECT coalesce(sum(item.quantity), 0)::bigint
        FROM reservations, jsonb_to_recordset(items) AS item (product_id uuid, quantity bigint)
        WHERE item.product_id = s.product_id AND status = 'held') AS held
FROM stock s WHERE product_id = $1
"""


@pytest.fixture(scope="session")
async def meeting(postgres: Databases) -> AsyncIterator[Meeting]:
    async with meeting_place(postgres, "product") as place:
        yield place


@dataclass(frozen=True, slots=True)
class Stocked:
    """A product with five units on hand."""

    meeting: Meeting
    id: UUID
    sku: str

    async def level(self) -> StockLevel:
        """What the stock says, once it was compared with movements and reservations."""
        books = await self.meeting.database.fetchrow(BOOKS, self.id)
        assert books is not None
        assert books["on_hand"] + books["committed"] == books["received"]
        assert books["reserved"] == books["held"]
        return StockLevel(books["on_hand"], books["reserved"])

    def reserve(self, order_id: UUID, quantity: int) -> Work:
        wanted = [Wanted(product_id=self.id, quantity=quantity)]
        return lambda database: Stock(database, TTL_S).reserve(order_id, wanted)

    def move(self, delta: int) -> Work:
        return lambda database: Stock(database, TTL_S).move(self.id, delta, "counted")

    def land(self, on_hand: int) -> Work:
        return _land(self.sku, on_hand)

    def change(self) -> Work:
        change = ProductChange(name="Another kettle")
        return lambda database: Catalogue(database).change(self.id, change, [1])

    def retire(self) -> Work:
        return lambda database: Catalogue(database).retire(self.id, [1])


def _land(sku: str, on_hand: int, category: str = "kettles") -> Work:
    line = ImportLine(sku=sku, name="Kettle", category=category, price_minor=1, currency="USD", on_hand=on_hand)
    return lambda database: Catalogue(database).land({sku: line})


def _add(sku: str, category: str = "kettles") -> Work:
    product = NewProduct(sku=sku, name="Kettle", category=category, price=Money(amount_minor=1, currency="USD"))
    return lambda database: Catalogue(database).add(product)


@pytest.fixture
async def product(meeting: Meeting) -> Stocked:
    sku = uuid4().hex
    added = await _add(sku)(meeting.database)
    stocked = Stocked(meeting, added.id, sku)
    await stocked.move(5)(meeting.database)
    return stocked


@ends_either_way
async def test_the_last_units_go_to_one_order(meeting: Meeting, product: Stocked, commit: bool) -> None:
    met = await meeting.of(product.reserve(uuid4(), 3), product.reserve(uuid4(), 3), commit=commit)
    assert met.waited
    assert isinstance(met.second, InsufficientStock) is commit
    assert await product.level() == (5, 3)


@ends_either_way
async def test_units_for_both_go_to_both(meeting: Meeting, product: Stocked, commit: bool) -> None:
    met = await meeting.of(product.reserve(uuid4(), 2), product.reserve(uuid4(), 3), commit=commit)
    assert met.waited
    assert met.second.status == "held"
    assert await product.level() == (5, 5 if commit else 3)


@ends_either_way
async def test_one_order_s_reservation_is_made_once(meeting: Meeting, product: Stocked, commit: bool) -> None:
    reserve = product.reserve(uuid4(), 3)
    met = await meeting.of(reserve, reserve, commit=commit)
    assert met.waited
    assert (met.second.status, met.second.changed) == ("held", not commit)
    assert await product.level() == (5, 3)


def _commit(order_id: UUID) -> Work:
    return lambda database: Stock(database, TTL_S).commit(order_id)


def _release(order_id: UUID) -> Work:
    return lambda database: Stock(database, TTL_S).release(order_id)


def _expire() -> Work:
    return lambda database: Stock(database, TTL_S).expire(MOST)


COMMITTED = ("committed", (3, 0))
RELEASED = ("released", (5, 0))
EXPIRED = ("expired", (5, 0))
HELD = ("held", (5, 2))

# What becomes of a reservation of two of the five units whose time is over, by which of two statements is first.
ENDS = {
    ("commit", "commit"): COMMITTED,
    ("commit", "release"): RELEASED,
    ("commit", "expire"): COMMITTED,
    ("commit", "reserve"): COMMITTED,
    ("release", "commit"): RELEASED,
    ("release", "release"): RELEASED,
    ("release", "expire"): RELEASED,
    ("release", "reserve"): RELEASED,
    ("expire", "commit"): COMMITTED,
    ("expire", "release"): RELEASED,
    ("expire", "expire"): EXPIRED,
    ("expire", "reserve"): HELD,
    ("reserve", "commit"): COMMITTED,
    ("reserve", "release"): RELEASED,
    ("reserve", "expire"): HELD,
    ("reserve", "reserve"): HELD,
}
# The same where the first is rolled back. The expiry has passed the reservation over; it comes again.
ALONE = {"commit": COMMITTED, "release": RELEASED, "expire": HELD, "reserve": HELD}


@ends_either_way
@pytest.mark.parametrize(("first", "second"), ENDS)
async def test_a_reservation_ends_in_one_way(
    meeting: Meeting, product: Stocked, first: str, second: str, commit: bool
) -> None:
    order_id = uuid4()
    works = {
        "commit": _commit(order_id),
        "release": _release(order_id),
        "expire": _expire(),
        "reserve": product.reserve(order_id, 2),
    }
    await works["reserve"](meeting.database)
    await meeting.database.execute(
        "UPDATE reservations SET expires_at = now() - interval '1 s' WHERE order_id = $1", order_id
    )
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited is (second != "expire")
    refused = commit and first == "release" and second in {"commit", "reserve"}
    assert isinstance(met.second, IllegalTransition) is refused
    status = await meeting.database.fetchval("SELECT status FROM reservations WHERE order_id = $1", order_id)
    assert (status, await product.level()) == (ENDS[first, second] if commit else ALONE[second])


@ends_either_way
@pytest.mark.parametrize(
    ("first", "second", "alone"),
    [("reserve", "release", "released"), ("release", "reserve", "held"), ("release", "release", "released")],
)
async def test_an_order_that_is_released_before_it_is_known_holds_nothing(
    meeting: Meeting, product: Stocked, first: str, second: str, alone: str, commit: bool
) -> None:
    order_id = uuid4()
    works = {"reserve": product.reserve(order_id, 2), "release": _release(order_id)}
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert isinstance(met.second, IllegalTransition) is (commit and second == "reserve")
    status = await meeting.database.fetchval("SELECT status FROM reservations WHERE order_id = $1", order_id)
    assert status == ("released" if commit else alone)
    assert await product.level() == (5, 2 if status == "held" else 0)


@ends_either_way
@pytest.mark.parametrize("reserve_first", [True, False], ids=["reserve-move", "move-reserve"])
async def test_what_is_reserved_is_not_taken_from_the_shelf(
    meeting: Meeting, product: Stocked, reserve_first: bool, commit: bool
) -> None:
    works = product.reserve(uuid4(), 4), product.move(-3)
    met = await meeting.of(*(works if reserve_first else reversed(works)), commit=commit)
    assert met.waited
    assert isinstance(met.second, InsufficientStock) is commit
    assert await product.level() == ((5, 4) if reserve_first is commit else (2, 0))


@ends_either_way
async def test_no_more_is_taken_from_the_shelf_than_is_there(meeting: Meeting, product: Stocked, commit: bool) -> None:
    met = await meeting.of(product.move(-3), product.move(-3), commit=commit)
    assert met.waited
    assert isinstance(met.second, InsufficientStock) is commit
    assert await product.level() == (2, 0)


@ends_either_way
@pytest.mark.parametrize("reserve_first", [True, False], ids=["reserve-import", "import-reserve"])
async def test_an_import_leaves_on_hand_what_is_reserved(
    meeting: Meeting, product: Stocked, reserve_first: bool, commit: bool
) -> None:
    works = product.reserve(uuid4(), 4), product.land(2)
    met = await meeting.of(*(works if reserve_first else reversed(works)), commit=commit)
    assert met.waited
    if reserve_first:
        assert met.second == ImportCounts(0, 0 if commit else 1, frozenset({product.sku} if commit else ()))
    else:
        assert isinstance(met.second, InsufficientStock) is commit
    assert await product.level() == ((5, 4) if reserve_first is commit else (2, 0))


@ends_either_way
@pytest.mark.parametrize(("move_first", "on_hand"), [(True, 2), (False, 3)], ids=["move-import", "import-move"])
async def test_an_import_notes_the_difference_to_what_it_replaces(
    meeting: Meeting, product: Stocked, move_first: bool, on_hand: int, commit: bool
) -> None:
    works = product.move(1), product.land(2)
    met = await meeting.of(*(works if move_first else reversed(works)), commit=commit)
    assert met.waited
    alone = 2 if move_first else 6
    assert await product.level() == (on_hand if commit else alone, 0)


@ends_either_way
@pytest.mark.parametrize("second", ["change", "retire"])
@pytest.mark.parametrize(("first", "refusal"), [("change", PreconditionFailed), ("retire", ProductNotFound)])
async def test_an_edit_of_a_version_is_the_only_one(
    meeting: Meeting, product: Stocked, first: str, second: str, refusal: type[Exception], commit: bool
) -> None:
    works = {"change": product.change(), "retire": product.retire()}
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert isinstance(met.second, refusal) is commit
    row = await meeting.database.fetchrow("SELECT version, retired_at FROM products WHERE id = $1", product.id)
    assert row is not None
    assert row["version"] == 2
    assert (row["retired_at"] is not None) is ((first if commit else second) == "retire")


@ends_either_way
@pytest.mark.usefixtures("product")  # so that the category is there, and it is the SKU for which the second waits
async def test_a_sku_is_taken_once(meeting: Meeting, commit: bool) -> None:
    sku = uuid4().hex
    met = await meeting.of(_add(sku), _add(sku), commit=commit)
    assert met.waited
    assert isinstance(met.second, SkuTaken) is commit
    assert await meeting.database.fetchval("SELECT count(*) FROM products WHERE sku = $1", sku) == 1


@ends_either_way
async def test_a_new_category_is_made_once_for_all_its_products(meeting: Meeting, commit: bool) -> None:
    category = uuid4().hex
    met = await meeting.of(_add(uuid4().hex, category), _add(uuid4().hex, category), commit=commit)
    assert met.waited
    assert met.second.version == 1
    assert await meeting.database.fetchval("SELECT count(*) FROM categories WHERE slug = $1", category) == 1


@ends_either_way
@pytest.mark.usefixtures("product")
async def test_a_new_product_in_two_imports_is_created_by_one(meeting: Meeting, commit: bool) -> None:
    sku = uuid4().hex
    met = await meeting.of(_land(sku, 1), _land(sku, 2), commit=commit)
    assert met.waited
    assert met.second == ImportCounts(*((0, 1) if commit else (1, 0)), frozenset())
    product_id = await meeting.database.fetchval("SELECT id FROM products WHERE sku = $1", sku)
    assert await Stocked(meeting, product_id, sku).level() == (2, 0)
