"""The payment service's wire shapes."""

from typing import Annotated, Literal

from pydantic import Field

from chassis.schemas import MAX_AMOUNT_MINOR, Answer, Body, Id, Money, Text, Time
from services.payment.domain import Status

Reason = Annotated[Text, Field(min_length=1, max_length=500)]


class NewPayment(Body):
    """What the order service asks to be authorised."""

    user_id: Id
    amount: Money
    payment_method: Annotated[Text, Field(min_length=1, max_length=64)]


class NewRefund(Body):
    """A refund of `amount_minor`, or of all that is left where it is not given."""

    amount_minor: Annotated[int, Field(ge=1, le=MAX_AMOUNT_MINOR)] | None = None
    reason: Reason


class Rest(Body):
    """The refund of all that is left of an order's payment."""

    reason: Reason


class HistoryEntry(Answer):
    status: Literal["authorised", "captured", "partially_refunded", "refunded", "voided", "declined"]
    at: Time
    reason: str | None = None


class Payment(Answer):
    """A payment whose outcome is known."""

    id: Id
    order_id: Id
    amount: Money
    status: Literal["authorised", "captured", "partially_refunded", "refunded", "voided", "declined"]
    decline_code: str | None
    captured: Money
    refunded: Money
    provider_reference: str | None
    history: list[HistoryEntry]


class OrderPayment(Answer):
    """A payment as the order service sees it: `pending` while the provider's answer is not known.

    The amounts are null where the payment was voided before it was ever asked for.
    """

    id: Id
    order_id: Id
    amount: Money | None
    status: Status
    decline_code: str | None
    captured: Money | None
    refunded: Money | None
    provider_reference: str | None
    history: list[HistoryEntry]
