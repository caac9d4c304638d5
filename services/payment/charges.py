"""A charge from its authorisation to its capture or its end.

Each step commits the intent, calls the provider, commits the outcome. Where a capture and a void meet, or a void and
an authorisation, the provider decides, and what is committed here follows it. So a step may be cut short anywhere, and
heals when it is asked for again.
"""

from uuid import UUID

from chassis.crash_points import crash_point
from chassis.database import Database
from chassis.problems import IllegalTransition
from services.payment import repository
from services.payment.domain import WAS_CAPTURED, refused
from services.payment.metrics import PaymentMetrics
from services.payment.provider import PaymentProvider, ProviderDeclined, ProviderRefused, known_outcome
from services.payment.repository import Payment


class Charges:
    def __init__(self, database: Database, provider: PaymentProvider, metrics: PaymentMetrics) -> None:
        self._database = database
        self._provider = provider
        self._metrics = metrics

    async def authorise(
        self, order_id: UUID, user_id: UUID, amount_minor: int, currency: str, payment_method: str
    ) -> str:
        """Have the amount set aside, once for an order, and return the payment as JSON.

        Raises IllegalTransition when the order's payment was asked for with other contents, Unavailable while the
        provider's answer is not known.
        """
        crash_point("payment.authorise.asked")
        intent = await repository.intend(self._database, order_id, user_id, amount_minor, currency, payment_method)
        if not intent.same:
            raise IllegalTransition("the payment of this order was asked for with another user, amount or method")
        if intent.document is not None:
            return intent.document
        crash_point("payment.intended")
        try:
            with known_outcome("authorise", self._metrics.provider_timeouts):
                reference = await self._provider.authorise(order_id, amount_minor, currency, payment_method)
        except ProviderDeclined as declined:
            return await self._record_declined(order_id, declined)
        except ProviderRefused:  # a void came first
            return await self._record_voided(order_id)
        crash_point("payment.authorise.provider_approved")
        authorised = await repository.record_authorised(self._database, order_id, reference)
        crash_point("payment.authorised")
        if authorised is None:
            return (await repository.read(self._database, order_id)).document
        self._metrics.authorised.inc()
        return authorised.document

    async def capture(self, order_id: UUID) -> str:
        """Take what was authorised, once, and return the payment as JSON.

        Raises PaymentNotFound, IllegalTransition when nothing is authorised, Unavailable while the outcome is unknown.
        """
        crash_point("payment.capture.asked")
        try:
            with known_outcome("capture", self._metrics.provider_timeouts):
                reference = await self._provider.capture(order_id)
        except ProviderRefused:
            raise refused("captured", (await repository.read(self._database, order_id)).status) from None
        payment = await self._record_captured(order_id, reference)
        if payment.status not in WAS_CAPTURED:
            raise refused("captured", payment.status)
        return payment.document

    async def void(self, order_id: UUID) -> str:
        """End the payment of an order before it is captured, also before it was ever asked for, and return it as JSON.

        A payment that was declined stays so. Raises IllegalTransition when it was captured, Unavailable while the
        outcome is not known.
        """
        crash_point("payment.void.asked")
        try:
            with known_outcome("void", self._metrics.provider_timeouts):
                await self._provider.void(order_id)
        except ProviderDeclined as declined:
            return await self._record_declined(order_id, declined)
        except ProviderRefused:
            # Captured. Its outcome may have been lost here: note it, so that a refund can follow.
            with known_outcome("capture", self._metrics.provider_timeouts):
                reference = await self._provider.capture(order_id)
            raise refused("voided", (await self._record_captured(order_id, reference)).status) from None
        return await self._record_voided(order_id)

    async def _record_captured(self, order_id: UUID, reference: str) -> Payment:
        crash_point("payment.capture.provider_captured")
        captured = await repository.record_captured(self._database, order_id, reference)
        crash_point("payment.captured")
        if captured is None:
            return await repository.read(self._database, order_id)
        self._metrics.captured.inc()
        return captured

    async def _record_declined(self, order_id: UUID, declined: ProviderDeclined) -> str:
        crash_point("payment.authorise.provider_declined")
        payment = await repository.record_declined(self._database, order_id, declined.decline_code)
        crash_point("payment.declined")
        if payment is None:
            return (await repository.read(self._database, order_id)).document
        self._metrics.declined.inc()
        return payment.document

    async def _record_voided(self, order_id: UUID) -> str:
        crash_point("payment.void.provider_voided")
        payment = await repository.record_voided(self._database, order_id)
        crash_point("payment.voided")
        if payment is None:
            return (await repository.read(self._database, order_id)).document
        self._metrics.voided.inc()
        return payment.document
