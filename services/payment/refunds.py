"""A refund: set aside here, made at the provider, noted here.

What is set aside counts as gone at once, so refunds that meet never exceed what was captured. The provider knows a
refund by its id, so whoever finds one pending may finish it: its own request, the refund of the rest, a repeated key,
the recovery worker. The lease only spares them doing it twice.
"""

from uuid import UUID

import structlog

from chassis.crash_points import crash_point
from chassis.database import Database, Statements
from chassis.idempotency import StoredAnswer
from chassis.problems import IdempotencyKeyReused, RequestInProgress, Unavailable
from services.payment import repository
from services.payment.domain import WAS_CAPTURED, RefundExceedsCaptured, refused
from services.payment.metrics import PaymentMetrics
from services.payment.provider import PaymentProvider, ProviderRefused, known_outcome
from services.payment.repository import Refund

RECOVERED_A_ROUND = 20

log = structlog.stdlib.get_logger()


class Refunds:
    def __init__(
        self, database: Database, provider: PaymentProvider, metrics: PaymentMetrics, *, lease_s: float
    ) -> None:
        self._database = database
        self._provider = provider
        self._metrics = metrics
        self._lease_s = lease_s

    async def refund(self, payment_id: UUID, amount_minor: int | None, reason: str) -> str:
        """Give back `amount_minor`, or all that is left, and return the payment as JSON.

        Raises PaymentNotFound, RefundExceedsCaptured; Unavailable while the outcome is not known: it will be made.
        """
        refund = await self._begin(self._database, payment_id, amount_minor, reason)
        document = await self._finish(refund)
        return document or (await repository.read(self._database, refund.order_id)).document

    async def refund_once(
        self, payment_id: UUID, amount_minor: int | None, reason: str, *, user_id: UUID, key: str, fingerprint: bytes
    ) -> tuple[StoredAnswer, bool]:
        """The same, once for an idempotency key; with the answer whether it was given before.

        Raises IdempotencyKeyReused and RequestInProgress too. A refusal leaves the key free.
        """
        async with self._database.transaction() as transaction:
            refund_id = await repository.claim_key(transaction, user_id, payment_id, key, fingerprint)
            refund = None
            if refund_id is not None:
                refund = await self._begin(transaction, payment_id, amount_minor, reason, refund_id)
        if refund is None:
            kept = await repository.kept_answer(self._database, user_id, payment_id, key)
            if kept is None:  # another request is taking it, or it came of age this very moment
                raise RequestInProgress
            if kept.fingerprint != fingerprint:
                raise IdempotencyKeyReused
            if kept.answer is not None:
                return StoredAnswer(200, kept.answer.encode()), True
            # Begun and not answered: either somebody is at it, or whoever was has gone.
            refund = await repository.claim_refund(self._database, kept.refund_id, self._lease_s)
            if refund is None:
                raise RequestInProgress
        document = await self._finish(refund)
        if document is None:
            # Whoever noted it kept the answer, and a repetition will get that one.
            kept = await repository.kept_answer(self._database, user_id, payment_id, key)
            document = kept and kept.answer
        if document is None:
            raise RequestInProgress
        return StoredAnswer(200, document.encode()), False

    async def refund_rest(self, order_id: UUID, reason: str) -> str:
        """Give back all that is left of an order's payment, and return it as JSON once every refund of it is done.

        Raises PaymentNotFound, IllegalTransition when it was not captured, Unavailable while an outcome is not known.
        """
        balance = await repository.balance(self._database, order_id=order_id)
        if balance.status not in WAS_CAPTURED:
            raise refused("refunded", balance.status)
        await repository.begin_refund(self._database, balance.payment_id, None, reason, self._lease_s, None)
        for refund in await repository.pending_refunds(self._database, balance.payment_id):
            await self._finish(refund)
        return (await repository.read(self._database, order_id)).document

    async def recover(self) -> None:
        """Finish refunds that were begun and left: one round of the recovery worker, safe on many replicas."""
        for refund in await repository.claim_abandoned_refunds(self._database, self._lease_s, RECOVERED_A_ROUND):
            try:
                await self._finish(refund)
                log.info("refund_recovered", refund_id=refund.id, order_id=refund.order_id)
            except Unavailable:
                log.warning("refund_still_unknown", refund_id=refund.id, order_id=refund.order_id)
            except ProviderRefused:
                # The provider's record and ours disagree. It stays pending, where the audit shows it to a person.
                log.exception("refund_refused_by_provider", refund_id=refund.id, order_id=refund.order_id)

    async def _begin(
        self,
        statements: Statements,
        payment_id: UUID,
        amount_minor: int | None,
        reason: str,
        refund_id: UUID | None = None,
    ) -> Refund:
        crash_point("payment.refund.asked")
        refund = await repository.begin_refund(statements, payment_id, amount_minor, reason, self._lease_s, refund_id)
        if refund is None:
            balance = await repository.balance(statements, payment_id=payment_id)
            raise RefundExceedsCaptured(
                balance.currency,
                captured_minor=balance.captured_minor,
                refunded_minor=balance.refunded_minor,
                refundable_minor=balance.refundable_minor,
            )
        return refund

    async def _finish(self, refund: Refund) -> str | None:
        """Have the provider make a refund, and note it; none where somebody else noted it meanwhile."""
        crash_point("payment.refund.begun")
        try:
            with known_outcome("refund", self._metrics.provider_timeouts):
                await self._provider.refund(refund.id, refund.order_id, refund.amount_minor)
        except Unavailable:
            await repository.release_refund(self._database, refund.id)
            raise
        crash_point("payment.refund.provider_refunded")
        document = await repository.finish_refund(self._database, refund.id)
        crash_point("payment.refunded")
        if document is not None:
            self._metrics.refunds.inc()
        return document
