"""A shop that has grown: products, users and orders, drawn from a seed and brought in by COPY.

What is drawn is as uneven as what shops have. A name is four words: one of twenty-five qualities, one of twenty
materials, one of a hundred things, and the made-up name of a series that some eight products share, however many there
are. A sentence stands in three of twenty descriptions. Prices are log-normal around 20.00. Who placed an order is drawn
by the cube of a number between 0 and 1, so that a twentieth of the users placed three of eight orders, and half of them
one of five.

Ids and times are a function of a row's number, so that whoever measures knows where in a list a row stands.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from bench.shop import ADDRESS
from chassis.database import Connection
from services.order.domain import Status
from services.product.domain import category_name, sort_key
from services.user.passwords import OWASP_FLOOR

FIRST_AT = datetime(2021, 1, 1, tzinfo=UTC)
APART = timedelta(minutes=2)
"""Between one row and the next: a million take four years."""
OF_A_SERIES = 8
BEST_SELLERS = 1000
"""Of how many products the orders are."""

PASSWORD = "the password of every customer who was brought in"  # noqa: S105 - of a shop that is measured and deleted

QUALITIES = (
    "Sturdy", "Airy", "Folding", "Woven", "Glazed", "Quilted", "Polished", "Rustic", "Narrow", "Broad", "Padded",
    "Carved", "Ribbed", "Slender", "Portable", "Insulated", "Striped", "Modern", "Vintage", "Compact", "Waterproof",
    "Stackable", "Hanging", "Rounded", "Tapered",
)  # fmt: skip
MATERIALS = (
    "oak", "walnut", "copper", "steel", "linen", "cotton", "leather", "bamboo", "ceramic", "marble", "glass", "brass",
    "felt", "canvas", "cork", "rattan", "wool", "silk", "granite", "pewter",
)  # fmt: skip
THINGS = {
    "kitchen": ("kettle", "skillet", "ladle", "colander", "grater"),
    "table": ("plate", "bowl", "goblet", "pitcher", "napkin"),
    "lighting": ("lantern", "lamp", "candlestick", "chandelier", "sconce"),
    "bedroom": ("pillow", "blanket", "mattress", "duvet", "nightstand"),
    "bathroom": ("towel", "mirror", "basin", "sponge", "robe"),
    "office": ("desk", "stapler", "notebook", "inkwell", "folder"),
    "garden": ("spade", "trowel", "planter", "hose", "trellis"),
    "workshop": ("hammer", "chisel", "wrench", "anvil", "clamp"),
    "travel": ("suitcase", "backpack", "wallet", "umbrella", "flask"),
    "music": ("fiddle", "drum", "flute", "banjo", "tambourine"),
    "toys": ("puzzle", "kite", "marionette", "yoyo", "rocker"),
    "sport": ("racket", "paddle", "skateboard", "dumbbell", "javelin"),
    "clothing": ("scarf", "jacket", "mitten", "apron", "waistcoat"),
    "jewellery": ("brooch", "bracelet", "necklace", "pendant", "earring"),
    "stationery": ("envelope", "pencil", "stamp", "ruler", "easel"),
    "pets": ("leash", "kennel", "birdcage", "aquarium", "scratcher"),
    "baby": ("cradle", "rattle", "pram", "bib", "mobile"),
    "storage": ("basket", "chest", "shelf", "crate", "hamper"),
    "windows": ("curtain", "blind", "shutter", "valance", "pelmet"),
    "seating": ("stool", "bench", "armchair", "hammock", "ottoman"),
}
SENTENCES = (
    "Made by hand in a family workshop that has done nothing else for three generations.",
    "The handle stays cool, even when everything around it does not.",
    "It comes flat in a box of recycled card and stands after ten minutes without a tool.",
    "A gift for someone who seems to own everything already.",
    "Clean it with a damp cloth and leave it to dry in the shade.",
    "Each piece differs a little in colour, since no two trees grow alike.",
    "Tested for years in a busy hotel before it was offered to anyone else.",
    "Pairs well with the other pieces of its series, past and future.",
    "Small enough for a balcony, and at home in a hall.",
    "Spare parts are kept for at least fifteen years after the last one was sold.",
    "The finish is free of solvents and safe around children.",
    "Weighs less than it looks, and carries more than one would think.",
    "Winner of a design award that few people have heard of.",
    "Rub it with oil twice a year and it will outlive its owner.",
    "The seams are sewn twice, where it matters three times.",
    "Drawn by an architect who wanted one for her own house.",
    "Ships within two days from a warehouse by the river.",
    "Rain does it no harm, and frost very little.",
    "Available again after a long wait, in a limited batch.",
    "Quiet in use, so that nobody next door will complain.",
)
SENTENCES_EACH = 3
COLOURS = ("amber", "indigo", "ivory", "charcoal", "sage", "rust", "plum", "sand")
SYLLABLES = tuple(consonant + vowel for consonant in "bdfgjklmnprtvz" for vowel in "aeiou")

PASSED = {
    Status.DELIVERED: (
        Status.PENDING, Status.RESERVED, Status.AUTHORISED, Status.CONFIRMED, Status.SHIPPED, Status.DELIVERED,
    ),
    Status.SHIPPED: (Status.PENDING, Status.RESERVED, Status.AUTHORISED, Status.CONFIRMED, Status.SHIPPED),
    Status.CONFIRMED: (Status.PENDING, Status.RESERVED, Status.AUTHORISED, Status.CONFIRMED),
    Status.CANCELLED: (Status.PENDING, Status.RESERVED, Status.AUTHORISED, Status.CONFIRMED, Status.CANCELLED),
    Status.REJECTED: (Status.PENDING, Status.REJECTED),
}  # fmt: skip
"""The statuses that an order has passed, by where it stands."""
SHARES = (80, 8, 5, 4, 3)
"""Of a hundred orders, in the order of `PASSED`."""
STEP = timedelta(milliseconds=40)
"""From one status of an order to the next."""


class Product(NamedTuple):
    """A row of `products`."""

    id: UUID
    sku: str
    name: str
    name_folded: str
    description: str
    category: str
    tags: list[str]
    price_minor: int
    currency: str
    image_url: str
    attributes: str
    created_at: datetime
    updated_at: datetime


class User(NamedTuple):
    """A row of `users`."""

    id: UUID
    email: str
    name: str
    role: str
    password_hash: str
    created_at: datetime


class Order(NamedTuple):
    """A row of `orders`, at an end or waiting to be shipped: nothing is left for the saga."""

    id: UUID
    user_id: UUID
    status: str
    lines: str
    total_minor: int
    currency: str
    address: str
    payment_method: str
    payment_id: UUID | None
    history: str
    from_cart: bool
    traceparent: str
    created_at: datetime
    updated_at: datetime


def at(number: int) -> datetime:
    """When the row of this number was made; a higher number is a later one."""
    return FIRST_AT + number * APART


def identifier(number: int) -> UUID:
    """The id of the row of this number, a UUIDv7 of its time (RFC 9562, 5.7), so in the order of the numbers."""
    milliseconds = int(at(number).timestamp() * 1000)
    scattered = number * 0x9E3779B97F4A7C15 % 2**62  # Fibonacci hashing: no two of them are alike
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | scattered)


def series(number: int) -> str:
    """The made-up name of a series, a word that no stemmer shortens."""
    first, rest = divmod(number, len(SYLLABLES) ** 2)
    second, third = divmod(rest, len(SYLLABLES))
    return f"{SYLLABLES[first % len(SYLLABLES)]}{SYLLABLES[second]}{SYLLABLES[third]}x"


def products(count: int, seed: int) -> Iterator[Product]:
    """So many products, the oldest first."""
    draw = Random(f"{seed} products {count}")  # noqa: S311 - nothing here is a secret
    kinds = [(category, thing) for category, things in THINGS.items() for thing in things]
    for number in range(count):
        category, thing = draw.choice(kinds)
        quality, material = draw.choice(QUALITIES), draw.choice(MATERIALS)
        name = f"{quality} {material} {thing} {series(draw.randrange(max(1, count // OF_A_SERIES))).capitalize()}"
        yield Product(
            id=identifier(number),
            sku=f"GROWN-{number:07}",
            name=name,
            name_folded=sort_key(name),
            description=" ".join(draw.sample(SENTENCES, SENTENCES_EACH)),
            category=category,
            tags=[category, material],
            price_minor=max(1, round(draw.lognormvariate(3.0, 0.8))) * 100 - 1,
            currency="USD",
            image_url=f"https://images.example.com/{number}.svg",
            attributes=f'{{"colour": "{draw.choice(COLOURS)}", "weight_g": {draw.randrange(50, 5000)}}}',
            created_at=at(number),
            updated_at=at(number),
        )


def stock(count: int, seed: int) -> Iterator[tuple[UUID, int]]:
    """The units of each product; one in twenty is sold out."""
    draw = Random(f"{seed} stock {count}")  # noqa: S311 - nothing here is a secret
    for number in range(count):
        yield identifier(number), draw.randrange(1, 500) if draw.random() < 0.95 else 0


def email(number: int) -> str:
    """The e-mail of the user of this number."""
    return f"customer-{number}@example.com"


def users(count: int) -> Iterator[User]:
    """So many customers. One password of all: a hash of each would take half an hour."""
    password_hash = OWASP_FLOOR.hash(PASSWORD)
    for number in range(count):
        name = f"{QUALITIES[number % len(QUALITIES)]} Customer"
        yield User(identifier(number), email(number), name, "customer", password_hash, at(number))


def orders(count: int, customers: int, bought: Sequence[Product], seed: int) -> Iterator[Order]:
    """So many orders, the oldest first, of so many customers: of one to five of these products each."""
    draw = Random(f"{seed} orders {count}")  # noqa: S311 - nothing here is a secret
    address = _json(ADDRESS)
    shares = tuple(accumulate(SHARES))
    for number in range(count):
        order_id, placed_at = identifier(number), at(number)
        [status] = draw.choices(tuple(PASSED), cum_weights=shares)
        lines = [(product, draw.randrange(1, 4)) for product in draw.sample(bought, draw.randrange(1, 6))]
        passed = [(status_passed, placed_at + step * STEP) for step, status_passed in enumerate(PASSED[status])]
        yield Order(
            id=order_id,
            user_id=identifier(int(customers * draw.random() ** 3)),
            status=status,
            lines=_json([_line(product, quantity) for product, quantity in lines]),
            total_minor=sum(product.price_minor * quantity for product, quantity in lines),
            currency="USD",
            address=address,
            payment_method="tok_visa",
            payment_id=None if status is Status.REJECTED else order_id,
            history=_json([{"status": each, "at": moment, "reason": None} for each, moment in passed]),
            from_cart=True,
            traceparent=f"00-{order_id.hex}-{order_id.hex[16:]}-00",
            created_at=placed_at,
            updated_at=passed[-1][1],
        )


def _line(product: Product, quantity: int) -> dict[str, object]:
    """A line of an order as it is stored."""
    return {
        "product_id": product.id,
        "sku": product.sku,
        "name": product.name,
        "quantity": quantity,
        "unit_price_minor": product.price_minor,
    }


def _json(document: object) -> str:
    return orjson.dumps(document).decode()


async def bring_products(connection: Connection, count: int, seed: int) -> None:
    """Fill the empty catalogue, and have PostgreSQL look at it as autovacuum would."""
    categories = [(slug, category_name(slug)) for slug in THINGS]
    async with filling(connection, "products"):
        await connection.copy_records_to_table("categories", records=categories)
        await _copy(connection, "products", Product, products(count, seed))
        await connection.copy_records_to_table("stock", records=stock(count, seed), columns=("product_id", "on_hand"))


async def bring_users(connection: Connection, count: int) -> None:
    """Fill `users`, beside the admin who may be there."""
    async with filling(connection, "users"):
        await _copy(connection, "users", User, users(count))


async def bring_orders(connection: Connection, count: int, customers: int, seed: int) -> None:
    """Fill the empty `orders`: of `customers` users, and of the first products of a catalogue of `count`."""
    bought = tuple(islice(products(count, seed), BEST_SELLERS))
    async with filling(connection, "orders"):
        await _copy(connection, "orders", Order, orders(count, customers, bought, seed))


@asynccontextmanager
async def filling(connection: Connection, table: str) -> AsyncGenerator[None]:
    """Leave a table's indexes out while it is filled, but for those that make it unique: built at once afterwards they
    cost a fraction. Foreign keys, which hold as the rows are drawn, are not looked up. At the end statistics are taken.
    """
    indexes = await connection.fetch(
        """
        SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
        FROM pg_index WHERE indrelid = $1::text::regclass AND NOT indisunique
        """,
        table,
    )
    await connection.execute("SET session_replication_role = replica; SET maintenance_work_mem = '256MB'")
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    yield
    for index in indexes:
        await connection.execute(index["definition"])
    await connection.execute("RESET session_replication_role; RESET maintenance_work_mem")
    await connection.execute("VACUUM (ANALYZE)")


async def _copy(connection: Connection, table: str, row: Any, records: Iterator[Any]) -> None:
    await connection.copy_records_to_table(table, records=records, columns=row._fields)
