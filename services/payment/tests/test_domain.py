"""What a payment may become, without a database."""

import pytest

from services.payment.domain import (
    CAPTURE,
    REFUND,
    REFUNDABLE,
    TRANSITIONS,
    WAS_CAPTURED,
    RefundExceedsCaptured,
    Status,
    refused,
    sources,
)


@pytest.mark.parametrize("final", ["refunded", "voided", "declined"])
def test_a_final_status_leads_nowhere(final: Status) -> None:
    assert TRANSITIONS[final] == ()


def test_nothing_becomes_pending_again() -> None:
    assert sources("pending") == []


def test_only_what_was_not_captured_can_be_voided() -> None:
    assert sources("voided") == ["pending", "authorised"]


def test_a_capture_whose_authorisation_was_never_heard_of_is_taken() -> None:
    assert sources("captured") == ["pending", "authorised"]


def test_a_refund_may_follow_a_part_of_one() -> None:
    assert {"captured", "partially_refunded"} == REFUNDABLE
    assert {"captured", "partially_refunded", "refunded"} == WAS_CAPTURED


def test_a_movement_debits_one_account_and_credits_another() -> None:
    for posting in (CAPTURE, REFUND):
        assert posting.debit is not posting.credit


def test_a_refund_takes_from_the_receivable_what_a_capture_put_there() -> None:
    assert CAPTURE.debit is REFUND.credit


def test_a_refund_that_exceeds_tells_what_is_left() -> None:
    problem = RefundExceedsCaptured("EUR", captured_minor=100, refunded_minor=30, refundable_minor=50)
    assert problem.document("/x")["refundable"] == {"amount_minor": 50, "currency": "EUR"}
    assert problem.document("/x")["refunded"] == {"amount_minor": 30, "currency": "EUR"}


def test_a_refusal_names_the_status() -> None:
    assert refused("captured", "voided").facts == {"payment_status": "voided"}
