"""The embedded provider: a remote system that happens to live in the same database.

It keeps a record of its own, on statements of its own that commit by themselves, so that the record can be audited
against ours; only the audit reads it. What has begun there is done, whether or not the caller waits for the answer.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from chassis.database import Database
from chassis.problems import Unavailable
from services.payment.provider import ProviderDeclined, ProviderRefused, ProviderTimeout

APPROVED = frozenset({"tok_visa", "tok_mastercard", "tok_slow", "tok_timeout"})
DECLINED = {
    "tok_declined": "declined",
    "tok_insufficient_funds": "insufficient_funds",
    "tok_expired_card": "expired_card",
}

# What is there already stays: the update without a change makes it come back.
AUTHORISE = """
INSERT INTO simulator_charges AS charge /* simulator authorise */
    (key, payment_method, amount_minor, currency, status, decline_code)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (key) DO UPDATE SET key = excluded.key
RETURNING reference, status, decline_code, old.key IS NULL AS is_new
"""
CAPTURE = """
UPDATE simulator_charges /* simulator capture */ SET status = 'captured', captured_minor = amount_minor
WHERE key = $1 AND status IN ('authorised', 'captured')
RETURNING reference
"""
VOID = """
INSERT INTO simulator_charges AS charge /* simulator void */ (key, status) VALUES ($1, 'voided')
ON CONFLICT (key) DO UPDATE SET status = CASE charge.status WHEN 'authorised' THEN 'voided' ELSE charge.status END
RETURNING status, decline_code
"""
REFUND = """
WITH /* simulator refund */ refund AS (
    INSERT INTO simulator_refunds (key, charge_key, amount_minor) VALUES ($1, $2, $3)
    ON CONFLICT (key) DO NOTHING
    RETURNING charge_key, amount_minor
)
UPDATE simulator_charges AS charge SET refunded_minor = charge.refunded_minor + refund.amount_minor
FROM refund WHERE charge.key = refund.charge_key
"""

Result = TypeVar("Result")


async def _remote(statement: Awaitable[Result]) -> Result:
    """Run a statement; a database that does not answer is a provider that does not."""
    try:
        return await statement
    except Unavailable as error:
        raise ProviderTimeout from error


class Simulator:
    """A PaymentProvider for which no money moves."""

    payment_methods = APPROVED | DECLINED.keys()

    def __init__(self, database: Database, *, slow_s: float, lost_answer_s: float) -> None:
        self._database = database
        self._slow_s = slow_s
        self._lost_answer_s = lost_answer_s

    async def authorise(self, key: UUID, amount_minor: int, currency: str, payment_method: str) -> str:
        decline_code = DECLINED.get(payment_method)
        status = "authorised" if decline_code is None else "declined"
        charge: Any = await _remote(
            self._database.fetchrow(AUTHORISE, key, payment_method, amount_minor, currency, status, decline_code)
        )
        if charge["is_new"] and payment_method == "tok_slow":
            await asyncio.sleep(self._slow_s)
        if charge["is_new"] and payment_method == "tok_timeout":
            await asyncio.sleep(self._lost_answer_s)
            raise ProviderTimeout
        if charge["status"] == "declined":
            raise ProviderDeclined(charge["decline_code"])
        if charge["status"] == "voided":
            raise ProviderRefused("voided")
        return charge["reference"]

    async def capture(self, key: UUID) -> str:
        reference = await _remote(self._database.fetchval(CAPTURE, key))
        if reference is None:
            raise ProviderRefused("not authorised")
        return reference

    async def void(self, key: UUID) -> None:
        charge: Any = await _remote(self._database.fetchrow(VOID, key))
        if charge["status"] == "declined":
            raise ProviderDeclined(charge["decline_code"])
        if charge["status"] == "captured":
            raise ProviderRefused("captured")

    async def refund(self, key: UUID, charge_key: UUID, amount_minor: int) -> None:
        try:
            await _remote(self._database.execute(REFUND, key, charge_key, amount_minor))
        except asyncpg.IntegrityConstraintViolationError as error:
            # More than is left, or no such charge: the constraint took back the refund's row too.
            raise ProviderRefused("not refundable") from error
