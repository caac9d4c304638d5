"""What a payment may become, and how the books note it. Pure.

    pending ──> authorised ──> captured ──> partially_refunded ──> refunded
       │             │             └────────────────────────────────^
       ├──> declined └──> voided
       └──> voided, captured

`pending` is our own: the provider was or will be asked, and its answer is not known here. It leads to `captured` where
the answer to the authorisation was lost and the capture's arrived.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from chassis.problems import IllegalTransition, NotFound, Problem

Status = Literal["pending", "authorised", "captured", "partially_refunded", "refunded", "voided", "declined"]

TRANSITIONS: dict[Status, tuple[Status, ...]] = {
    "pending": ("authorised", "declined", "voided", "captured"),
    "authorised": ("captured", "voided"),
    "captured": ("partially_refunded", "refunded"),
    "partially_refunded": ("partially_refunded", "refunded"),
    "refunded": (),
    "voided": (),
    "declined": (),
}


def sources(target: Status) -> list[Status]:
    """The statuses that lead to `target` in one step: what a guarded statement compares with."""
    return [status for status, targets in TRANSITIONS.items() if target in targets]


REFUNDABLE = frozenset(sources("refunded"))
WAS_CAPTURED = REFUNDABLE | {"refunded"}


class Account(StrEnum):
    """The chart of accounts. Amounts are signed: a debit is positive, a credit negative."""

    PROVIDER_RECEIVABLE = "provider_receivable"
    """An asset: what the provider has taken from buyers and owes the shop."""
    SALES_REVENUE = "sales_revenue"
    """Revenue."""
    SALES_RETURNS = "sales_returns"
    """Contra revenue: what was given back, kept apart so that sales stay readable."""


@dataclass(frozen=True, slots=True)
class Posting:
    """Which account a movement debits and which it credits."""

    debit: Account
    credit: Account


CAPTURE = Posting(debit=Account.PROVIDER_RECEIVABLE, credit=Account.SALES_REVENUE)
REFUND = Posting(debit=Account.SALES_RETURNS, credit=Account.PROVIDER_RECEIVABLE)


class PaymentNotFound(NotFound):
    """No such payment, or none that this caller may see."""


class RefundExceedsCaptured(Problem):
    status, code, title = 409, "refund-exceeds-captured", "More than is left of what was captured"

    def __init__(self, currency: str, *, captured_minor: int, refunded_minor: int, refundable_minor: int) -> None:
        def money(amount_minor: int) -> dict[str, Any]:
            return {"amount_minor": amount_minor, "currency": currency}

        super().__init__(
            captured=money(captured_minor), refunded=money(refunded_minor), refundable=money(refundable_minor)
        )


def refused(action: str, status: Status) -> IllegalTransition:
    """The problem of an action that the present status does not allow."""
    return IllegalTransition(f"a payment that is {status} cannot be {action}", payment_status=status)
