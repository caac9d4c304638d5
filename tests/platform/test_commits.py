"""A transaction that fails when it commits, its route being done, is answered as an error and leaves nothing."""

import asyncpg
import pytest

from chassis.app import Service, create_service
from chassis.database import Transaction
from chassis.settings import ServiceSettings
from chassis.testing import UserTokens, client, settings_for
from tests.databases import Databases
from tests.platform.assembly import PASSWORD, Platform, Shopper
from tests.platform.conftest import Stocked

REFUSE_COMMIT = """
CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'refused at the commit' USING ERRCODE = '{sqlstate}';
END
$$;
CREATE CONSTRAINT TRIGGER refuse_commit AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_commit();
"""
ALLOW_COMMIT = "DROP FUNCTION refuse_commit CASCADE"
INTEGRITY, SERIALIZATION = "23000", "40001"


async def _refuse_commits(service: Service, table: str, event: str = "INSERT", sqlstate: str = INTEGRITY) -> None:
    await service.database.execute(REFUSE_COMMIT.format(table=table, event=event, sqlstate=sqlstate))


async def _count(service: Service, table: str) -> int:
    return await service.database.fetchval(f"SELECT count(*) FROM {table}")


@pytest.mark.parametrize(("sqlstate", "status"), [(INTEGRITY, 500), (SERIALIZATION, 503)])
async def test_a_transaction_dependency_that_fails_to_commit_answers_an_error(
    postgres: Databases, sqlstate: str, status: int
) -> None:
    url = postgres.create()
    service = create_service("order", settings_for(ServiceSettings, "order", url), {"user": UserTokens().transport()})

    @service.post("/notes", status_code=201)
    async def note(tx: Transaction) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        await tx.execute("INSERT INTO notes DEFAULT VALUES")
        return {"status": "noted"}

    await service.database.execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY)")
    try:
        async with client(service) as caller:
            assert (await caller.post("/notes")).status_code == 201
            await _refuse_commits(service, "notes", sqlstate=sqlstate)
            answer = await caller.post("/notes")
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
            assert "refused at the commit" not in answer.text
            assert await _count(service, "notes") == 1
            await service.database.execute(ALLOW_COMMIT)
            assert (await caller.post("/notes")).status_code == 201
    finally:
        await service.database.close()
        postgres.drop(url)


async def test_a_registration_that_fails_to_commit_is_no_201(platform: Platform) -> None:
    await _refuse_commits(platform.user, "users")
    body = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
    assert (await platform.client().post("/api/v1/auth/register", json=body)).status_code == 500
    assert await _count(platform.user, "users") == 0
    await platform.user.database.execute(ALLOW_COMMIT)
    assert (await platform.client().post("/api/v1/auth/register", json=body)).status_code == 201


async def test_a_product_that_fails_to_commit_is_no_201(platform: Platform, admin: Shopper) -> None:
    await _refuse_commits(platform.product, "products")
    body = {"sku": "MUG", "name": "Mug", "category": "kitchen", "price": {"amount_minor": 1, "currency": "USD"}}
    assert (await admin.call("POST", "/api/v1/products", body)).status_code == 500
    assert await _count(platform.product, "products") == 0
    await platform.product.database.execute(ALLOW_COMMIT)
    assert (await admin.call("POST", "/api/v1/products", body)).status_code == 201


async def test_a_refund_that_fails_to_commit_is_no_200(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    order = await customer.bought((await stocked(10), 1))
    await _refuse_commits(platform.payment, "refunds")
    assert (await admin.refund(order["payment_id"], 100)).status_code == 500
    assert await _count(platform.payment, "refunds") == 0
    await platform.payment.database.execute(ALLOW_COMMIT)
    assert (await admin.refund(order["payment_id"], 100)).status_code == 200
    assert await platform.violations() == []


async def test_an_order_that_fails_to_be_stored_is_no_201_and_leaves_the_key_free(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    await _refuse_commits(platform.orders[0], "orders")
    assert (await customer.order((product_id, 1), key="refused")).status_code == 500
    assert await customer.orders() == []
    await platform.orders[0].database.execute(ALLOW_COMMIT)
    assert (await customer.order((product_id, 1), key="refused")).status_code == 201
    assert await platform.violations() == []


async def test_an_order_whose_confirmation_fails_to_commit_is_no_201_and_is_recovered(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    await platform.orders[0].database.execute(
        REFUSE_COMMIT.format(table="orders", event="UPDATE", sqlstate=SERIALIZATION).replace(
            "FOR EACH ROW", "FOR EACH ROW WHEN (new.status = 'confirmed')"
        )
    )
    answer = await customer.order((product_id, 1), key="unconfirmed")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await platform.orders[0].database.execute(ALLOW_COMMIT)
    again = await customer.order((product_id, 1), key="unconfirmed")
    assert (again.status_code, again.headers["retry-after"]) == (409, "1")
    await platform.recover(replica=1)
    assert (await customer.order((product_id, 1), key="unconfirmed")).status_code == 201
    assert await platform.available(product_id) == 9
    assert await platform.violations() == []


async def test_a_statement_that_refuses_a_row_says_nothing_of_the_database(platform: Platform) -> None:
    """What PostgreSQL says of a failure is for the log: the answer has the trace id by which it is found there."""
    await _refuse_commits(platform.user, "users")
    body = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
    answer = await platform.client().post("/api/v1/auth/register", json=body)
    assert answer.json()["trace_id"] == answer.headers["x-request-id"]
    assert "commit" not in answer.text
    assert asyncpg.IntegrityConstraintViolationError.__name__ not in answer.text
