"""A payment and a list of payments are read by an index: what PostgreSQL plans, over many payments, for the very
statements that are served.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from services.payment import repository
from services.payment.repository import NEWEST
from tests.databases import Databases
from tests.plans import Noting, plan_of, to_fill

PAYMENTS, CUSTOMERS = 50_000, 2_500
SHOWN = 21
"""A page of twenty, and the row that tells whether more follow."""
FILL = f"""
INSERT INTO payments (order_id, user_id, amount_minor, currency, payment_method, status)
SELECT uuidv7(), lpad(to_hex(CASE WHEN n % 10 = 0 THEN 0 ELSE n % {CUSTOMERS} END), 32, '0')::uuid, n, 'USD',
    'tok_visa', CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'authorised' END
FROM generate_series(1, {PAYMENTS}) n
"""
MOST, FEW = UUID(int=0), UUID(int=7)
"""A customer with a tenth of all payments, and one with twenty."""


@pytest.fixture(scope="module")
async def database(postgres: Databases) -> AsyncIterator[Noting]:
    """Many payments."""
    async with to_fill(postgres, "payment") as (database, connection):
        await connection.execute(FILL)
        await connection.execute("VACUUM (ANALYZE)")
        yield database


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("customer", [MOST, FEW], ids=["most", "few"])
async def test_a_page_of_a_customers_payments_reads_no_more_of_the_index_than_it_needs(
    database: Noting, customer: UUID, second_page: bool
) -> None:
    before = NEWEST
    if second_page:
        *_, (before, _) = await repository.list_of_user(database, customer, NEWEST, 10)
    plan = await plan_of(database, repository.list_of_user(database, customer, before, SHOWN))
    assert plan.indexes == {"payments_of_user"}
    assert not plan.whole_tables
    # What is pending is not shown yet, and passed over.
    assert plan.rows_looked_at("payments") <= SHOWN * 1.5


async def test_a_payment_is_found_by_its_id_and_by_its_order(database: Noting) -> None:
    row = await database.fetchrow("SELECT id, order_id FROM payments WHERE user_id = $1 LIMIT 1", FEW)
    assert row is not None
    payment_id, order_id = row
    for read, index in (
        (repository.read_public(database, payment_id, FEW, any_user=False), "payments_pkey"),
        (repository.read_public(database, payment_id, MOST, any_user=True), "payments_pkey"),
        (repository.list_of_order(database, order_id, FEW, NEWEST, any_user=False), "payments_order_id_key"),
        (repository.read(database, order_id), "payments_order_id_key"),
        (repository.balance(database, payment_id=payment_id), "payments_pkey"),
        (repository.balance(database, order_id=order_id), "payments_order_id_key"),
    ):
        plan = await plan_of(database, read)
        assert plan.indexes == {index}
        assert plan.rows_looked_at("payments") == 1
