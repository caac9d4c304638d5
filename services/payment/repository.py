"""Every SQL statement of the payment service, but for the embedded provider's, which stand beside it.

What changes a payment is one statement that compares its status, so of a capture and a void, or of two refunds, each
sees what the other has done. Statements that move money write payment, history and ledger together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chassis.database import Statements
from chassis.idempotency import KEPT_HOURS
from services.payment.domain import CAPTURE, REFUND, PaymentNotFound, Status, sources

TO_AUTHORISED = sources("authorised")
TO_CAPTURED = sources("captured")
TO_DECLINED = sources("declined")
TO_REFUNDED = sources("refunded")
TO_VOIDED = sources("voided")

NEWEST = UUID(int=2**128 - 1)
"""Before any id in a list that begins with the newest."""


def _rfc3339(moment: str) -> str:
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _money(column: str) -> str:
    return f"""CASE WHEN payment.currency IS NOT NULL
        THEN json_build_object('amount_minor', payment.{column}, 'currency', payment.currency) END"""


def _passed(status: str, reason: str = "NULL") -> str:
    """One more entry of a history. By the clock and not by the transaction, which may have waited for the row."""
    return f"""jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'status', {status}::text, 'at', {_rfc3339("clock_timestamp()")}, 'reason', {reason}::text)))"""


DOCUMENT = f"""json_build_object(
    'id', payment.id,
    'order_id', payment.order_id,
    'amount', {_money("amount_minor")},
    'status', payment.status,
    'decline_code', payment.decline_code,
    'captured', {_money("captured_minor")},
    'refunded', {_money("refunded_minor")},
    'provider_reference', payment.provider_reference,
    'history', payment.history)::text"""
"""The wire shape of a row that goes by the name `payment`."""

PUBLIC = "payment.status <> 'pending' AND payment.user_id IS NOT NULL"
"""A payment shows once its outcome is known; one that was voided before it was asked for is nobody's."""


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment's status, and the whole of it as JSON."""

    status: Status
    document: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What there is of an order's payment: `same` as asked now or not; `document` is none while it is pending."""

    same: bool
    document: str | None


@dataclass(frozen=True, slots=True)
class Refund:
    id: UUID
    order_id: UUID
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What of a payment is captured, refunded, and left to be refunded."""

    payment_id: UUID
    status: Status
    currency: str
    captured_minor: int
    refunded_minor: int
    refundable_minor: int


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What an idempotency key began; `answer` is none until its refund is done."""

    fingerprint: bytes
    refund_id: UUID
    answer: str | None


def _payment(row: Any) -> Payment | None:
    return None if row is None else Payment(row["status"], row["document"])


# Charges

# On conflict nothing changes, but for what a payment that was voided before it was asked for did not know.
INTEND = f"""
INSERT INTO payments AS payment /* intend payment */ (order_id, user_id, amount_minor, currency, payment_method)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (order_id) DO UPDATE SET
    user_id = coalesce(payment.user_id, excluded.user_id),
    amount_minor = coalesce(payment.amount_minor, excluded.amount_minor),
    currency = coalesce(payment.currency, excluded.currency),
    payment_method = coalesce(payment.payment_method, excluded.payment_method)
RETURNING (user_id, amount_minor, currency, payment_method) = ($2, $3, $4, $5) AS same,
    CASE WHEN status <> 'pending' THEN {DOCUMENT} END AS document
"""
SETTLE = f"""
UPDATE payments AS payment /* settle payment */ SET status = $3, decline_code = $4, provider_reference = $5,
    history = history || {_passed("$3", "$4")}, updated_at = now()
WHERE order_id = $1 AND status = ANY($2)
RETURNING status, {DOCUMENT} AS document
"""
VOID = f"""
INSERT INTO payments AS payment /* void payment */ (order_id, status, history)
VALUES ($1, 'voided', {_passed("'voided'")})
ON CONFLICT (order_id) DO UPDATE SET
    status = 'voided', history = payment.history || {_passed("'voided'")}, updated_at = now()
WHERE payment.status = ANY($2)
RETURNING status, {DOCUMENT} AS document
"""
RECORD_CAPTURE = f"""
WITH /* record capture */ payment AS (
    UPDATE payments SET status = 'captured', captured_minor = amount_minor, provider_reference = $3,
        history = history || {_passed("'captured'")}, updated_at = now()
    WHERE order_id = $1 AND status = ANY($2)
    RETURNING *
), entries AS (
    INSERT INTO ledger_entries (movement_id, payment_id, account, amount_minor, currency)
    SELECT payment.id, payment.id, leg.account, leg.sign * payment.captured_minor, payment.currency
    FROM payment, (VALUES ($4, 1), ($5, -1)) AS leg (account, sign)
)
SELECT payment.status, {DOCUMENT} AS document FROM payment
"""
READ = f"SELECT /* payment of order */ status, {DOCUMENT} AS document FROM payments AS payment WHERE order_id = $1"


async def intend(
    statements: Statements, order_id: UUID, user_id: UUID, amount_minor: int, currency: str, payment_method: str
) -> Intent:
    """Note that this payment is wanted, once, and return what there is."""
    row: Any = await statements.fetchrow(INTEND, order_id, user_id, amount_minor, currency, payment_method)
    return Intent(row["same"], row["document"])


async def record_authorised(statements: Statements, order_id: UUID, provider_reference: str) -> Payment | None:
    """Note the provider's approval; none where the payment is past that."""
    return _payment(await statements.fetchrow(SETTLE, order_id, TO_AUTHORISED, "authorised", None, provider_reference))


async def record_declined(statements: Statements, order_id: UUID, decline_code: str) -> Payment | None:
    """Note the provider's refusal; none where the payment is past that."""
    return _payment(await statements.fetchrow(SETTLE, order_id, TO_DECLINED, "declined", decline_code, None))


async def record_captured(statements: Statements, order_id: UUID, provider_reference: str) -> Payment | None:
    """Note that the provider has the money, in history and ledger; none where the payment is past that."""
    return _payment(
        await statements.fetchrow(
            RECORD_CAPTURE, order_id, TO_CAPTURED, provider_reference, CAPTURE.debit, CAPTURE.credit
        )
    )


async def record_voided(statements: Statements, order_id: UUID) -> Payment | None:
    """Note that there is no payment for this order, nor will be; none where it was settled otherwise."""
    return _payment(await statements.fetchrow(VOID, order_id, TO_VOIDED))


async def read(statements: Statements, order_id: UUID) -> Payment:
    """The payment of an order; raises PaymentNotFound."""
    found = _payment(await statements.fetchrow(READ, order_id))
    if found is None:
        raise PaymentNotFound
    return found


# Refunds

BALANCE = """
SELECT /* balance */ id, status, currency, captured_minor, refunded_minor,
    captured_minor - refunded_minor - refunding_minor AS refundable_minor
FROM payments WHERE
"""
BALANCE_OF_PAYMENT = f"{BALANCE} id = $1 AND user_id IS NOT NULL"
BALANCE_OF_ORDER = f"{BALANCE} order_id = $1"
# A payment of nothing has nothing left and yet can be refunded, once: of two at a time the index lets in the first.
BEGIN_REFUND = """
WITH /* begin refund */ payment AS (
    UPDATE payments SET updated_at = now(),
        refunding_minor = refunding_minor + coalesce($3::bigint, captured_minor - refunded_minor - refunding_minor)
    WHERE id = $2 AND status = ANY($4) AND CASE
        WHEN $3::bigint IS NULL THEN captured_minor > refunded_minor + refunding_minor OR captured_minor = 0
        ELSE captured_minor >= refunded_minor + refunding_minor + $3 END
    RETURNING id, order_id, new.refunding_minor - old.refunding_minor AS amount_minor
), refund AS (
    INSERT INTO refunds (id, payment_id, amount_minor, reason, leased_until)
    SELECT coalesce($1, uuidv7()), id, amount_minor, $5, now() + make_interval(secs => $6) FROM payment
    ON CONFLICT (payment_id) WHERE amount_minor = 0 DO NOTHING
    RETURNING id
)
SELECT refund.id, payment.order_id, payment.amount_minor FROM payment, refund
"""
FINISH_REFUND = f"""
WITH /* finish refund */ refund AS (
    UPDATE refunds SET status = 'done', updated_at = now() WHERE id = $1 AND status = 'pending'
    RETURNING id, payment_id, amount_minor, reason
), payment AS (
    UPDATE payments AS payment SET
        refunded_minor = refunded_minor + refund.amount_minor,
        refunding_minor = refunding_minor - refund.amount_minor,
        (status, history) = (
            SELECT after.status, payment.history || {_passed("after.status", "refund.reason")}
            FROM (SELECT CASE WHEN payment.refunded_minor + refund.amount_minor = payment.captured_minor
                THEN 'refunded' ELSE 'partially_refunded' END) AS after (status)),
        updated_at = now()
    FROM refund WHERE payment.id = refund.payment_id
    RETURNING payment.*
), entries AS (
    INSERT INTO ledger_entries (movement_id, payment_id, account, amount_minor, currency)
    SELECT refund.id, payment.id, leg.account, leg.sign * refund.amount_minor, payment.currency
    FROM refund, payment, (VALUES ($2, 1), ($3, -1)) AS leg (account, sign)
), answer AS (
    SELECT {DOCUMENT} AS document FROM payment
), kept AS (
    UPDATE idempotency_keys SET answer = answer.document FROM answer WHERE refund_id = $1
)
SELECT document FROM answer
"""
PENDING_REFUNDS = """
SELECT /* pending refunds */ refund.id, payment.order_id, refund.amount_minor
FROM refunds AS refund JOIN payments AS payment ON payment.id = refund.payment_id
WHERE refund.payment_id = $1 AND refund.status = 'pending'
ORDER BY refund.id
"""
CLAIM_REFUND = """
UPDATE refunds AS refund /* claim refund */ SET leased_until = now() + make_interval(secs => $2)
FROM payments AS payment
WHERE refund.id = $1 AND refund.status = 'pending' AND refund.leased_until <= now() AND payment.id = refund.payment_id
RETURNING refund.id, payment.order_id, refund.amount_minor
"""
CLAIM_ABANDONED_REFUNDS = """
UPDATE refunds AS refund /* claim abandoned refunds */ SET leased_until = now() + make_interval(secs => $1)
FROM (
    SELECT id FROM refunds WHERE status = 'pending' AND leased_until <= now()
    ORDER BY leased_until LIMIT $2 FOR UPDATE SKIP LOCKED
) AS abandoned, payments AS payment
WHERE refund.id = abandoned.id AND payment.id = refund.payment_id
RETURNING refund.id, payment.order_id, refund.amount_minor
"""
RELEASE_REFUND = """
UPDATE refunds /* release refund */ SET leased_until = now() WHERE id = $1 AND status = 'pending'
"""


def _refund(row: Any) -> Refund:
    return Refund(row["id"], row["order_id"], row["amount_minor"])


async def balance(statements: Statements, *, payment_id: UUID | None = None, order_id: UUID | None = None) -> Balance:
    """What may be refunded of a payment, by its own id or its order's; raises PaymentNotFound."""
    row = await (
        statements.fetchrow(BALANCE_OF_ORDER, order_id)
        if payment_id is None
        else statements.fetchrow(BALANCE_OF_PAYMENT, payment_id)
    )
    if row is None:
        raise PaymentNotFound
    return Balance(*row)


async def begin_refund(
    statements: Statements,
    payment_id: UUID,
    amount_minor: int | None,
    reason: str,
    lease_s: float,
    refund_id: UUID | None,
) -> Refund | None:
    """Set `amount_minor` aside for a refund, or all that is left; none where that is more than is left, or nothing.

    The refund is leased to the caller for `lease_s`. It gets `refund_id`, where there is one.
    """
    row = await statements.fetchrow(BEGIN_REFUND, refund_id, payment_id, amount_minor, TO_REFUNDED, reason, lease_s)
    return None if row is None else _refund(row)


async def finish_refund(statements: Statements, refund_id: UUID) -> str | None:
    """Note that the provider has given the money back, in history, ledger and kept answer, and return the payment.

    None where that was noted before.
    """
    return await statements.fetchval(FINISH_REFUND, refund_id, REFUND.debit, REFUND.credit)


async def pending_refunds(statements: Statements, payment_id: UUID) -> Sequence[Refund]:
    """The refunds of a payment that are begun and not done, whoever is at them."""
    return [_refund(row) for row in await statements.fetch(PENDING_REFUNDS, payment_id)]


async def claim_refund(statements: Statements, refund_id: UUID, lease_s: float) -> Refund | None:
    """Lease a pending refund that nobody is at any more; none where somebody is, or it is done."""
    row = await statements.fetchrow(CLAIM_REFUND, refund_id, lease_s)
    return None if row is None else _refund(row)


async def claim_abandoned_refunds(statements: Statements, lease_s: float, most: int) -> Sequence[Refund]:
    """Lease pending refunds that nobody is at any more."""
    return [_refund(row) for row in await statements.fetch(CLAIM_ABANDONED_REFUNDS, lease_s, most)]


async def release_refund(statements: Statements, refund_id: UUID) -> None:
    """End the lease of a pending refund, so that the next who asks may go on with it at once."""
    await statements.execute(RELEASE_REFUND, refund_id)


# Idempotency keys

# A key's row that is not committed would hold up all who ask for it, each with a connection in hand. The lock comes
# first and is not waited for.
CLAIM_KEY = f"""
INSERT INTO idempotency_keys AS kept /* claim key */ (user_id, payment_id, key, fingerprint, refund_id)
SELECT $1::uuid, $2::uuid, $3::text, $4::bytea, uuidv7()
WHERE pg_try_advisory_xact_lock(hashtextextended(concat($1, $2, $3), 0))
ON CONFLICT (user_id, payment_id, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, refund_id = excluded.refund_id, answer = NULL, created_at = now()
WHERE kept.created_at < now() - interval '{KEPT_HOURS} hours'
RETURNING refund_id
"""
KEPT_ANSWER = """
SELECT /* kept answer */ fingerprint, refund_id, answer FROM idempotency_keys
WHERE user_id = $1 AND payment_id = $2 AND key = $3
"""
DELETE_OLD_KEYS = f"""
DELETE FROM idempotency_keys /* delete old keys */ WHERE created_at < now() - interval '{KEPT_HOURS} hours'
"""


async def claim_key(
    statements: Statements, user_id: UUID, payment_id: UUID, key: str, fingerprint: bytes
) -> UUID | None:
    """Take a key that is free and return the id for its refund; none where it is taken, or being taken."""
    return await statements.fetchval(CLAIM_KEY, user_id, payment_id, key, fingerprint)


async def kept_answer(statements: Statements, user_id: UUID, payment_id: UUID, key: str) -> KeptAnswer | None:
    """What was begun, and maybe answered, under a key."""
    row = await statements.fetchrow(KEPT_ANSWER, user_id, payment_id, key)
    return None if row is None else KeptAnswer(*row)


async def delete_old_keys(statements: Statements) -> None:
    """Forget the keys that are no longer kept."""
    await statements.execute(DELETE_OLD_KEYS)


# What is read

READ_PUBLIC = f"""
SELECT /* payment */ {DOCUMENT} AS document FROM payments AS payment
WHERE id = $1 AND (user_id = $2 OR $3) AND {PUBLIC}
"""
LIST_OF_ORDER = f"""
SELECT /* payments of order */ id, {DOCUMENT} AS document FROM payments AS payment
WHERE order_id = $1 AND (user_id = $2 OR $3) AND id < $4 AND {PUBLIC}
"""
LIST_OF_USER = f"""
SELECT /* payments of user */ id, {DOCUMENT} AS document FROM payments AS payment
WHERE user_id = $1 AND id < $2 AND {PUBLIC}
ORDER BY id DESC LIMIT $3
"""
IMBALANCE = """
SELECT /* imbalance */ coalesce(sum(abs(total)), 0)::float8
FROM (SELECT sum(amount_minor) AS total FROM ledger_entries GROUP BY currency) AS currencies
"""


async def read_public(statements: Statements, payment_id: UUID, user_id: UUID, *, any_user: bool) -> str:
    """A payment as JSON; raises PaymentNotFound where it is not `user_id`'s, unless `any_user` may be shown."""
    document = await statements.fetchval(READ_PUBLIC, payment_id, user_id, any_user)
    if document is None:
        raise PaymentNotFound
    return document


async def list_of_order(
    statements: Statements, order_id: UUID, user_id: UUID, before: UUID, *, any_user: bool
) -> Sequence[tuple[UUID, str]]:
    """The payment of an order, with its id, or nothing."""
    rows = await statements.fetch(LIST_OF_ORDER, order_id, user_id, any_user, before)
    return [(row["id"], row["document"]) for row in rows]


async def list_of_user(statements: Statements, user_id: UUID, before: UUID, most: int) -> Sequence[tuple[UUID, str]]:
    """A user's payments with their ids, newest first, those older than `before`."""
    rows = await statements.fetch(LIST_OF_USER, user_id, before, most)
    return [(row["id"], row["document"]) for row in rows]


async def imbalance_minor(statements: Statements) -> float:
    """How far the ledger is from summing to zero, over all currencies. Reads all of it: 0.1 us an entry."""
    return await statements.fetchval(IMBALANCE)


# The audit

AUDIT = (
    f"""
SELECT /* audit */ json_build_object('kind', 'payment', 'id', id, 'order_id', order_id, 'user_id', user_id,
    'status', status, 'currency', currency, 'amount_minor', amount_minor, 'captured_minor', captured_minor,
    'refunded_minor', refunded_minor, 'updated_at', {_rfc3339("updated_at")})::text
FROM payments
""",
    f"""
SELECT /* audit */ json_build_object('kind', 'refund', 'id', id, 'payment_id', payment_id, 'amount_minor', amount_minor,
    'status', status, 'updated_at', {_rfc3339("updated_at")})::text
FROM refunds
""",
    """
SELECT /* audit */ json_build_object('kind', 'ledger_entry', 'movement_id', movement_id, 'payment_id', payment_id,
    'account', account, 'amount_minor', amount_minor, 'currency', currency)::text
FROM ledger_entries
""",
    """
SELECT /* audit */ json_build_object('kind', 'provider_record', 'order_id', key, 'status', status,
    'amount_minor', amount_minor, 'currency', currency, 'captured_minor', captured_minor,
    'refunded_minor', refunded_minor)::text
FROM simulator_charges
""",
)
