"""The audit finds each kind of violation, and nothing in a shop where all is well."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from drills.audit import Beliefs, Violation, audit, check
from local.postgres import run_sql
from tests.databases import Databases
from tests.platform.assembly import Platform
from tests.platform.conftest import MakePlatform
from tests.platform.faults import Gate
from tests.shop import running_shop

STRANGER = "00000000-0000-7000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class BusyShop:
    """The databases of a shop in which everything has happened, and what a violation is planted on."""

    urls: dict[str, str]
    names: dict[str, str]


@pytest.fixture(scope="module")
async def busy_shop(postgres: Databases) -> AsyncIterator[BusyShop]:
    """Orders that ended in every way there is."""
    urls = {name: postgres.clone(name) for name in SERVICES}
    platform = Platform(urls)
    try:
        names = await _do_business(platform)
        assert await platform.violations() == []
    finally:
        await platform.aclose()
    yield BusyShop(urls, names)
    for url in urls.values():
        postgres.drop(url)


async def _do_business(platform: Platform) -> dict[str, str]:
    admin, customer = await platform.admin(), await platform.customer()
    product_id = await platform.product_of(admin, stock=50, price_minor=1000)
    scarce = await platform.product_of(admin, stock=1)
    sold = await customer.bought((product_id, 2))
    for steps in (("ship",), ("ship", "deliver"), ("cancel",)):
        order = await customer.bought((product_id, 1))
        for step in steps:
            assert (await admin.move(order["id"], step)).status_code == 200
    for amount_minor in (300, None):
        refunded = await customer.bought((product_id, 1))
        assert (await admin.refund(refunded["payment_id"], amount_minor)).status_code == 200
    assert (await customer.order((scarce, 2))).status_code == 409
    declined = (await customer.order((product_id, 1), method="tok_declined")).json()["order_id"]
    voided = await _expired_and_sold_to_others(platform, scarce)
    stock = {"delta": -3, "reason": "broken"}
    assert (await admin.call("POST", f"/api/v1/products/{product_id}/stock", stock)).status_code == 200
    statuses = {row["status"] for row in await platform.orders[0].database.fetch("SELECT status FROM orders")}
    assert statuses == {"confirmed", "shipped", "delivered", "rejected", "cancelled"}
    return {
        "sold": sold["id"],
        "payment": sold["payment_id"],
        "declined": declined,
        "voided": voided,
        "product": product_id,
        "stranger": STRANGER,
    }


async def _expired_and_sold_to_others(platform: Platform, product_id: str) -> str:
    """An order of the last unit that waits for its payment for too long; returns its id."""
    late, quick = await platform.customer(), await platform.customer()

    class Expiry(Gate):
        async def __call__(self, deliver: Any) -> httpx2.Response:
            answer = await deliver()
            await platform.product.database.execute("UPDATE reservations SET expires_at = now() WHERE status = 'held'")
            await platform.product.state.stock.expire(100)
            assert (await quick.order((product_id, 1))).status_code == 201
            return answer

    platform.faults.strike("payment", "PUT", "/payments/", Expiry(), nth=1)
    answer = await late.order((product_id, 1))
    assert answer.status_code == 409
    return answer.json()["order_id"]


ITEMS = '[{{"product_id": "{product}", "quantity": 2}}]'
RELEASE = """
UPDATE reservations SET status = 'released' WHERE order_id = '{sold}';
UPDATE stock SET on_hand = on_hand + 2 WHERE product_id = '{product}';
"""
COPY_ORDER = """
INSERT INTO orders (id, user_id, status, lines, total_minor, currency, address, payment_method, history, from_cart,
    traceparent, updated_at)
SELECT '{{stranger}}', user_id, '{status}', lines, total_minor, currency, address, payment_method, history, from_cart,
    traceparent, now() - interval '{age}'
FROM orders WHERE id = '{{sold}}'
"""
COMMIT_STRANGER = f"""
INSERT INTO reservations (order_id, items, status, expires_at) VALUES ('{{stranger}}', '{ITEMS}', 'committed', now());
UPDATE stock SET on_hand = on_hand - 2 WHERE product_id = '{{product}}';
"""
UNGUARDED = "SET LOCAL session_replication_role = replica;"
"""Without triggers and foreign keys: what a hand in the database, or a restored backup, may leave."""

PLANTS: list[tuple[str, dict[str, str]]] = [
    (
        "a sold order is paid",
        {"order": COPY_ORDER.format(status="confirmed", age="0"), "product": COMMIT_STRANGER},
    ),
    (
        "a sold order is paid in its exact total",
        {"order": "UPDATE orders SET total_minor = total_minor + 1 WHERE id = '{sold}'"},
    ),
    (
        "a sold order names its payment",
        {"order": "UPDATE orders SET payment_id = '{stranger}' WHERE id = '{sold}'"},
    ),
    ("a sold order's stock is committed", {"product": RELEASE}),
    (
        "a sold order's stock is that of its lines",
        {
            "product": """
            UPDATE reservations SET items = jsonb_set(items, '{{0,quantity}}', '3') WHERE order_id = '{sold}';
            UPDATE stock SET on_hand = on_hand - 1 WHERE product_id = '{product}';
            """
        },
    ),
    (
        "an order that ended unsold costs nothing",
        {"order": "UPDATE orders SET status = 'cancelled' WHERE id = '{sold}'", "product": RELEASE},
    ),
    (
        "an order that ended unsold holds no money",
        {
            "payment": """
            UPDATE payments SET status = 'authorised', updated_at = now() WHERE order_id = '{voided}';
            UPDATE simulator_charges SET status = 'authorised' WHERE key = '{voided}';
            """
        },
    ),
    (
        "an order that ended unsold holds no stock",
        {
            "product": """
            UPDATE reservations SET status = 'held' WHERE order_id = '{declined}';
            UPDATE stock SET reserved = reserved + 1 WHERE product_id = '{product}';
            """
        },
    ),
    (
        "an order is paid once",
        {
            "payment": """
            ALTER TABLE payments DROP CONSTRAINT payments_order_id_key;
            INSERT INTO payments (order_id, status) VALUES ('{voided}', 'voided');
            """
        },
    ),
    (
        "a capture belongs to an order",
        {"order": "DELETE FROM orders WHERE id = '{sold}'", "product": RELEASE},
    ),
    (
        "the provider's record agrees",
        {"payment": "UPDATE simulator_charges SET refunded_minor = 1 WHERE key = '{sold}'"},
    ),
    (
        "the provider's record agrees",
        {"payment": "UPDATE simulator_charges SET currency = 'EUR' WHERE key = '{sold}'"},
    ),
    (
        "the provider's record agrees",
        {
            "payment": """
            INSERT INTO simulator_charges (key, payment_method, amount_minor, currency, status, captured_minor)
            VALUES ('{stranger}', 'tok_visa', 100, 'USD', 'captured', 100)
            """
        },
    ),
    *(
        (
            "the provider's record agrees",
            {"payment": f"UPDATE simulator_charges SET status = '{status}' WHERE key = '{{{order}}}'"},
        )
        for order, status in [
            ("voided", "authorised"),
            ("declined", "authorised"),
            ("declined", "voided"),
            ("sold", "authorised"),
            ("sold", "voided"),
        ]
    ),
    (
        "the provider's record agrees",
        {"payment": "DELETE FROM simulator_charges WHERE key = '{voided}'"},
    ),
    (
        "the provider's record agrees",
        {
            "payment": """
            INSERT INTO simulator_charges (key, payment_method, amount_minor, currency, status)
            VALUES ('{stranger}', 'tok_visa', 100, 'USD', 'authorised')
            """
        },
    ),
    (
        "the ledger sums to zero",
        {
            "payment": UNGUARDED
            + "UPDATE ledger_entries SET currency = 'EUR' WHERE movement_id = '{payment}' AND amount_minor > 0"
        },
    ),
    (
        "a movement is two rows that balance",
        {
            "payment": UNGUARDED
            + """
            UPDATE ledger_entries SET amount_minor = amount_minor + 1
            WHERE movement_id = '{payment}' AND account = 'sales_revenue';
            INSERT INTO ledger_entries (movement_id, account, payment_id, amount_minor, currency)
            VALUES ('{payment}', 'sales_returns', '{payment}', -1, 'USD');
            """
        },
    ),
    *(
        (
            "a movement is on its accounts, in its payment's currency",
            {"payment": f"{UNGUARDED} UPDATE ledger_entries SET {change} WHERE movement_id = {movement}"},
        )
        for movement in (
            "'{payment}'",
            "(SELECT id FROM refunds WHERE amount_minor > 0 ORDER BY id LIMIT 1)",
        )
        for change in ("amount_minor = -amount_minor", "currency = 'EUR'")
    ),
    (
        "a movement is on its accounts, in its payment's currency",
        {
            "payment": UNGUARDED
            + """
            UPDATE ledger_entries SET account = 'sales_returns'
            WHERE movement_id = '{payment}' AND account = 'sales_revenue'
            """
        },
    ),
    (
        "a movement is on its accounts, in its payment's currency",
        {
            "payment": UNGUARDED
            + """
            UPDATE ledger_entries SET account = 'sales_revenue'
            WHERE movement_id IN (SELECT id FROM refunds) AND account = 'sales_returns'
            """
        },
    ),
    (
        "the ledger has every movement of a payment",
        {
            "payment": """
            INSERT INTO ledger_entries (movement_id, account, payment_id, amount_minor, currency)
            VALUES ('{stranger}', 'sales_returns', '{payment}', 5, 'USD'),
                ('{stranger}', 'provider_receivable', '{payment}', -5, 'USD')
            """
        },
    ),
    (
        "a ledger entry belongs to a payment",
        {
            "payment": UNGUARDED
            + """
            INSERT INTO ledger_entries (movement_id, account, payment_id, amount_minor, currency)
            VALUES ('{stranger}', 'provider_receivable', '{stranger}', 5, 'USD'),
                ('{stranger}', 'sales_revenue', '{stranger}', -5, 'USD')
            """
        },
    ),
    ("committed stock belongs to an order", {"product": COMMIT_STRANGER}),
    (
        "stock on hand and committed is all that was received",
        {"product": "UPDATE stock SET on_hand = on_hand + 1 WHERE product_id = '{product}'"},
    ),
    (
        "reserved stock is what reservations hold",
        {"product": "UPDATE stock SET reserved = reserved + 1 WHERE product_id = '{product}'"},
    ),
    (
        "nothing is oversold",
        {
            "product": """
            ALTER TABLE stock DROP CONSTRAINT stock_check;
            UPDATE stock SET reserved = on_hand + 1 WHERE product_id = '{product}';
            INSERT INTO reservations (order_id, items, status, expires_at)
            SELECT '{stranger}', jsonb_build_array(jsonb_build_object('product_id', product_id, 'quantity', reserved)),
                'held', now() + interval '15 minutes'
            FROM stock WHERE product_id = '{product}';
            """
        },
    ),
    (
        "a reservation is of a product",
        {
            "product": """
            INSERT INTO reservations (order_id, items, status, expires_at)
            VALUES ('{stranger}', '[{{"product_id": "{stranger}", "quantity": 1}}]', 'held', now())
            """
        },
    ),
    ("an order settles within a minute", {"order": COPY_ORDER.format(status="reserved", age="61 seconds")}),
    (
        "an order settles within a minute",
        {
            "order": """
            UPDATE orders SET lease_until = now(), undo = '{{"to": "cancelled", "reason": "x", "refusal": null}}',
                updated_at = now() - interval '61 seconds'
            WHERE id = '{sold}'
            """
        },
    ),
    (
        "a payment settles within a minute",
        {
            "payment": """
            INSERT INTO payments (order_id, user_id, amount_minor, currency, payment_method, status, updated_at)
            VALUES ('{stranger}', '{stranger}', 5, 'USD', 'tok_visa', 'authorised', now() - interval '61 seconds');
            INSERT INTO simulator_charges (key, payment_method, amount_minor, currency, status)
            VALUES ('{stranger}', 'tok_visa', 5, 'USD', 'authorised');
            """
        },
    ),
    (
        "a refund settles within a minute",
        {
            "payment": """
            INSERT INTO refunds (payment_id, amount_minor, reason, leased_until, updated_at)
            VALUES ('{payment}', 0, 'returned', now(), now() - interval '61 seconds')
            """
        },
    ),
    (
        "a reservation ends within a minute of its expiry",
        {
            "product": f"""
            INSERT INTO reservations (order_id, items, status, expires_at)
            VALUES ('{{stranger}}', '{ITEMS}', 'held', now() - interval '61 seconds');
            UPDATE stock SET reserved = reserved + 2 WHERE product_id = '{{product}}';
            """
        },
    ),
]

SHOWN_BY = {"the ledger sums to zero": "a movement is on its accounts, in its payment's currency"}
"""What cannot break alone: the movement at fault shows too."""


def test_every_kind_of_violation_is_planted() -> None:
    known = re.findall(r'Violation\("([^"]+)"', (ROOT / "drills" / "audit.py").read_text())
    assert known
    assert {promise for promise, _ in PLANTS} == set(known)


@pytest.mark.parametrize(("promise", "plants"), PLANTS, ids=[promise.replace(" ", "-") for promise, _ in PLANTS])
async def test_a_planted_violation_is_found_and_nothing_else(
    make_platform: MakePlatform, postgres: Databases, busy_shop: BusyShop, promise: str, plants: dict[str, str]
) -> None:
    copies = {name: postgres.create(urlsplit(busy_shop.urls[name]).path.removeprefix("/")) for name in plants}
    platform = make_platform(busy_shop.urls | copies)
    try:
        assert await platform.violations() == []
        for service, statements in plants.items():
            async with platform.services[service].database.transaction() as transaction:
                await transaction.execute(statements.format(**busy_shop.names))
        found = await platform.violations()
        assert {violation.promise for violation in found} == {promise, SHOWN_BY.get(promise, promise)}, found
    finally:
        await platform.aclose()
        for url in copies.values():
            postgres.drop(url)


def _beliefs(**stock: int) -> Beliefs:
    beliefs = Beliefs()
    beliefs.add({"kind": "stock", "product_id": STRANGER, **stock})
    return beliefs


async def test_a_violation_is_a_promise_that_two_readings_show_broken_of_the_same_subject() -> None:
    clean = _beliefs(on_hand=5, reserved=0, received=5)
    missing_one, missing_two = (_beliefs(on_hand=n, reserved=0, received=5) for n in (4, 3))
    elsewhere = Beliefs()
    elsewhere.add(missing_one.stock[STRANGER] | {"product_id": "another"})
    oversold = _beliefs(on_hand=-1, reserved=0, received=-1)
    promise = "stock on hand and committed is all that was received"
    lasting = Violation(promise, STRANGER, "4 on hand + 0 committed, 5 received")
    moved = Violation(promise, STRANGER, "3 on hand + 0 committed, 5 received")
    for first, second, expected in [
        (clean, missing_one, []),
        (missing_one, clean, []),
        (missing_one, elsewhere, []),
        (missing_one, oversold, []),
        (missing_one, missing_one, [lasting]),
        (missing_one, missing_two, [moved]),
    ]:
        readings = iter([first, second])

        async def read(left: Any = readings) -> Beliefs:
            return next(left)

        assert (await audit(read, again_after_s=0))[1] == expected


def test_a_reading_of_nothing_is_clean() -> None:
    assert check(Beliefs(), datetime.now(UTC)) == []


def test_the_audit_command_tells_a_shop_that_is_well_from_one_that_is_not(postgres: Databases, tmp_path: Path) -> None:
    urls = {name: postgres.clone(name) for name in SERVICES}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = (sys.executable, "-m", "drills.audit", *arguments)
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    try:
        with running_shop(urls, tmp_path) as shop:
            asked = ["--secrets", str(shop.secrets / "audit")]
            asked += [part for name, url in shop.services.items() for part in ("--url", f"{name}={url}")]
            clean = run(*asked)
            assert (clean.returncode, clean.stdout.splitlines()[-1]) == (0, "audit: clean"), clean.stderr
            plant = f"INSERT INTO simulator_charges VALUES ('{STRANGER}', 'x', 'tok_visa', 5, 'USD', 'captured', '', 5)"
            run_sql(urls["payment"], plant)
            found = run(*asked)
            assert found.returncode == 1
            assert f"VIOLATION the provider's record agrees: {STRANGER}: " in found.stdout
            assert found.stdout.splitlines()[-1] == "audit: 1 violations"
        gone = run(*asked)
        assert (gone.returncode, gone.stdout) == (1, "")
        assert gone.stderr.startswith("audit: ")
        lost = run("--data", str(tmp_path / "nowhere"))
        assert lost.returncode == 1
        assert "is the shop running" in lost.stderr
    finally:
        for url in urls.values():
            postgres.drop(url)
