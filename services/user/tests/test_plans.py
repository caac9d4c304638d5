"""A user, a list of users and an address book are read by an index: what PostgreSQL plans, over many users, for the
very statements that are served.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from bench.grown import bring_users, email, identifier
from services.user.repository import Accounts, Addresses
from tests.databases import Databases
from tests.plans import Noting, plan_of, to_fill

USERS = 20_000
ADDRESSES = 3
SOMEBODY = USERS // 3
SHOWN = 21
"""A page of twenty, and the row that tells whether more follow."""
ADDRESS_BOOKS = f"""
INSERT INTO addresses (user_id, name, line1, city, postal_code, country)
SELECT id, name, '1 Quay', 'Lisbon', '1100', 'PT' FROM users, generate_series(1, {ADDRESSES})
"""


@pytest.fixture(scope="module")
async def database(postgres: Databases) -> AsyncIterator[Noting]:
    """Many users, each with addresses."""
    async with to_fill(postgres, "user") as (database, connection):
        await bring_users(connection, USERS)
        await connection.execute(ADDRESS_BOOKS)
        await connection.execute("VACUUM (ANALYZE) addresses")
        yield database


@pytest.mark.parametrize("before", [None, identifier(USERS // 100)], ids=["first-page", "deep-page"])
async def test_a_page_of_the_users_reads_what_it_shows(database: Noting, before: UUID | None) -> None:
    plan = await plan_of(database, Accounts(database).page(None, before, SHOWN))
    assert plan.indexes == {"users_pkey"}
    assert plan.rows_looked_at("users") == SHOWN


async def test_a_user_is_found_by_id_and_by_email(database: Noting) -> None:
    accounts = Accounts(database)
    for read, index in (
        (accounts.get(identifier(SOMEBODY)), "users_pkey"),
        (accounts.find(email(SOMEBODY)), "users_email_key"),
        (accounts.page(email(SOMEBODY), None, SHOWN), "users_email_key"),
        (accounts.is_admin(email(SOMEBODY)), "users_email_key"),
    ):
        plan = await plan_of(database, read)
        assert plan.indexes == {index}
        assert not plan.whole_tables
        assert plan.rows_looked_at("users") == 1


@pytest.mark.parametrize("second_page", [False, True])
async def test_an_address_book_reads_its_own_addresses(database: Noting, second_page: bool) -> None:
    addresses = Addresses(database)
    first = await addresses.page(identifier(SOMEBODY), None, SHOWN)
    after = first[0].id if second_page else None
    plan = await plan_of(database, addresses.page(identifier(SOMEBODY), after, SHOWN))
    assert plan.indexes == {"addresses_by_user"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("addresses") <= ADDRESSES
